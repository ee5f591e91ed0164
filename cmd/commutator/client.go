package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/node"
)

const (
	defaultEndpoint = "http://127.0.0.1:8000"
	devKey          = "commutator" // dev's access key and secret

	findTimeout   = 5 * time.Second  // to learn what an endpoint is
	callTimeout   = 30 * time.Second // of one request; what takes longer is a job
	maxAnswer     = 64 << 20         // bytes of an operator API's answer
	healthyPrefix = "healthy: dynamodb."
)

// clientFlags say which regions a command talks to, and as whom.
type clientFlags struct {
	endpoints             []string
	data, region, profile string
}

func addClientFlags(c *cobra.Command) *clientFlags {
	f := &clientFlags{}
	c.Flags().StringSliceVar(&f.endpoints, "endpoint", nil, `URL of a region's API; give it again, or several parted by commas, for several regions
(default: AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL or the profile's; else all regions of the
dev that runs on --data; else `+defaultEndpoint+`)`)
	c.Flags().StringVar(&f.data, "data", defaultData, "data directory of a running dev, where no endpoint is given")
	c.Flags().StringVar(&f.region, "region", "", "talk to this region alone (default: what the endpoints say of themselves)")
	c.Flags().StringVar(&f.profile, "profile", "", "profile of the AWS configuration files")
	c.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "endpoint-url" { // as the AWS CLI calls it
			name = "endpoint"
		}
		return pflag.NormalizedName(name)
	})
	return f
}

// client talks to one region.
type client struct {
	url    string
	region string
	aws    aws.Config
	dynamo *dynamodb.Client
}

// connect finds the regions that the flags and the environment name, in their order. down names those
// that do not answer; err is for when there is nothing to talk to.
func (f *clientFlags) connect(ctx context.Context) (up []*client, down, err error) {
	var options []func(*config.LoadOptions) error
	if f.profile != "" {
		options = append(options, config.WithSharedConfigProfile(f.profile))
	}
	// A key pair of a node's configuration is never one that a cloud machine has by itself.
	options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, nil, err
	}
	cfg.HTTPClient = &http.Client{Timeout: callTimeout}
	urls, err := f.urls(cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := setCredentials(ctx, &cfg, urls); err != nil {
		return nil, nil, err
	}
	regions, errs := make([]string, len(urls)), make([]error, len(urls))
	var g errgroup.Group
	for i, u := range urls {
		g.Go(func() error {
			regions[i], errs[i] = whatRegion(ctx, u)
			return nil
		})
	}
	g.Wait()
	for i, u := range urls {
		if errs[i] != nil {
			continue
		}
		c := &client{url: u, region: regions[i], aws: cfg.Copy()}
		if f.region != "" && c.region != f.region {
			continue
		}
		c.aws.Region, c.aws.BaseEndpoint = c.region, &u
		c.dynamo = dynamodb.NewFromConfig(c.aws)
		up = append(up, c)
	}
	down = errors.Join(errs...)
	switch {
	case len(up) > 0:
		return up, down, nil
	case f.region != "" && down == nil:
		return nil, nil, fmt.Errorf("no endpoint serves region %s; they serve %s", f.region, strings.Join(regions, ", "))
	}
	return nil, nil, fmt.Errorf("%w\n`commutator dev` starts three regions on this machine; --endpoint names others", down)
}

// one connects to one region: the first that answers.
func (f *clientFlags) one(ctx context.Context) (*client, error) {
	up, _, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	return up[0], nil
}

// reach is connect for what one region is asked: an error if none is up.
func (f *clientFlags) reach(ctx context.Context) ([]*client, error) {
	up, down, err := f.connect(ctx)
	if err == nil && len(up) == 0 {
		err = down
	}
	return up, err
}

// urls returns the endpoints to talk to.
func (f *clientFlags) urls(cfg aws.Config) ([]string, error) {
	given := f.endpoints
	if len(given) == 0 {
		// The SDK knows all the places where an endpoint may be configured.
		if e := dynamodb.NewFromConfig(cfg).Options().BaseEndpoint; e != nil {
			given = []string{*e}
		}
	}
	if len(given) == 0 {
		if a, err := node.Control(f.data, node.ControlRequest{Command: "status"}); err == nil {
			for _, r := range a.Regions {
				given = append(given, r.Endpoint)
			}
		}
	}
	if len(given) == 0 {
		given = []string{defaultEndpoint}
	}
	var out []string
	for _, e := range given {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usageError{fmt.Errorf("%q is no endpoint such as %s", e, defaultEndpoint)}
		}
		if e = u.Scheme + "://" + u.Host; !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// setCredentials checks that there is a key pair. Where none is configured, and all is on this machine,
// it is dev's.
func setCredentials(ctx context.Context, cfg *aws.Config, urls []string) error {
	if cfg.Credentials != nil {
		if _, err := cfg.Credentials.Retrieve(ctx); err == nil {
			return nil
		}
	}
	if slices.ContainsFunc(urls, func(u string) bool { return !isLoopback(u) }) {
		return errors.New("no key pair to sign requests with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile")
	}
	cfg.Credentials = credentials.NewStaticCredentialsProvider(devKey, devKey, "")
	return nil
}

func isLoopback(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}

// whatRegion asks an endpoint which region it serves.
func whatRegion(ctx context.Context, endpoint string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/", nil)
	if err != nil {
		return "", err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // it names the URL again
		}
		return "", fmt.Errorf("%s does not answer: %w", endpoint, err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("%s: %w", endpoint, err)
	}
	rest, healthy := strings.CutPrefix(string(body), healthyPrefix)
	region, _, named := strings.Cut(rest, ".")
	if !healthy || !named {
		return "", fmt.Errorf("%s answers, and is no DynamoDB-compatible endpoint (%s)", endpoint, a.Status)
	}
	return region, nil
}

// operatorError is the operator API's answer to a request that it refuses.
type operatorError struct {
	region, code, message string
}

func (e *operatorError) Error() string     { return e.region + ": " + e.message }
func (e *operatorError) ErrorCode() string { return e.code }

// operator calls an operation of the operator API.
func (c *client) operator(ctx context.Context, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/x-amz-json-1.0")
	q.Header.Set("X-Amz-Target", admin.TargetPrefix+operation)
	key, err := c.aws.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, key, q, hex.EncodeToString(sum[:]), "dynamodb", c.region, time.Now()); err != nil {
		return err
	}
	a, err := c.aws.HTTPClient.Do(q)
	if err != nil {
		return fmt.Errorf("%s: %w", c.region, err)
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", c.region, err)
	}
	if a.StatusCode != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string
		}
		if json.Unmarshal(answer, &e) != nil || e.Type == "" {
			return fmt.Errorf("%s: %s answers %s", c.region, c.url, a.Status)
		}
		_, code, _ := strings.Cut(e.Type, "#")
		return &operatorError{c.region, code, cmp.Or(e.Message, code)}
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the answer to %s: %w", c.region, operation, err)
	}
	return nil
}

// askAll asks every region the same and returns the answers, in the regions' order. Those that cannot be
// asked, or refuse, are in the error; the answers of the others are returned all the same. A region without the table in question is
// passed over where another has it.
func askAll[A any](ctx context.Context, f *clientFlags, operation string, in any) ([]A, error) {
	up, down, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	answers, errs := make([]A, len(up)), make([]error, len(up))
	var g errgroup.Group
	for i, c := range up {
		g.Go(func() error {
			errs[i] = c.operator(ctx, operation, in, &answers[i])
			return nil
		})
	}
	g.Wait()
	var out []A
	for i := range answers {
		if errs[i] == nil {
			out = append(out, answers[i])
		}
	}
	for i, err := range errs {
		if e := (*operatorError)(nil); out != nil && errors.As(err, &e) && e.code == "ResourceNotFoundException" {
			errs[i] = nil
		}
	}
	return out, errors.Join(append(errs, down)...)
}

// hint says what to do about an error where that is not plain, or "".
func hint(err error) string {
	var coded interface{ ErrorCode() string }
	if !errors.As(err, &coded) {
		return ""
	}
	switch coded.ErrorCode() {
	case "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException", "IncompleteSignatureException":
		return "the key pair is not the node's: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --profile (dev prints its own)"
	}
	return ""
}

// poll calls done until it says so, or fails, or ctx ends: often at first, then once a second.
func poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	for pause := 20 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
