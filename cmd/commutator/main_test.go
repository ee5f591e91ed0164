package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/node"
)

// The tests run the commands as main does, in process, against a dev of two regions in memory.

func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("AWS_CONFIG_FILE", os.DevNull)
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	os.Exit(m.Run())
}

// A testDev is a running dev. Commands find it by its directory.
type testDev struct {
	t       *testing.T
	dir     string
	clients []*client
}

const east, west = "us-east-1", "eu-west-1"

// startDev starts a dev of these regions, by default of two.
func startDev(t *testing.T, regions ...string) *testDev {
	t.Helper()
	if regions == nil {
		regions = []string{east, west}
	}
	dir, err := os.MkdirTemp("", "cmt") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dev, err := node.OpenDev(node.DevConfig{
		Regions: regions, Data: dir, InMemory: true, Credentials: []node.Credential{{AccessKey: devKey, SecretKey: devKey}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dev.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, dev.Close()); err != nil {
			t.Error("dev:", err)
		}
	})
	if err := dev.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := &testDev{t: t, dir: dir}
	if d.clients, _, err = (&clientFlags{data: dir}).connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// try runs a command line.
func try(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	c := rootCommand()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	err = c.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

// run runs a command line on the dev that must succeed.
func (d *testDev) run(args ...string) (stdout, stderr string) {
	d.t.Helper()
	stdout, stderr, err := try(d.t, append(args, "--data", d.dir)...)
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout, stderr
}

// refused runs a command line on the dev that must fail, with an error that has all the texts.
func (d *testDev) refused(args []string, texts ...string) {
	d.t.Helper()
	_, _, err := try(d.t, append(args, "--data", d.dir)...)
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			d.t.Errorf("%s: %v, want an error with %q", strings.Join(args, " "), err, text)
		}
	}
}

// eventually waits for what another region does.
func (d *testDev) eventually(what string, holds func() bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	if poll(ctx, func(context.Context) (bool, error) { return holds(), nil }) != nil {
		d.t.Fatalf("after 10 s, not %s", what)
	}
}

type attributes = map[string]types.AttributeValue

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func (d *testDev) put(region int, table string, item attributes) {
	d.t.Helper()
	if _, err := d.clients[region].dynamo.PutItem(d.t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *testDev) get(region int, table, key string) attributes {
	d.t.Helper()
	a, err := d.clients[region].dynamo.GetItem(d.t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: attributes{"pk": text(key)}})
	if err != nil {
		d.t.Fatal(err)
	}
	return a.Item
}

func (d *testDev) control(command, region string) {
	d.t.Helper()
	if _, err := node.Control(d.dir, node.ControlRequest{Command: command, Region: region}); err != nil {
		d.t.Fatal(err)
	}
}

// closedEndpoint is the URL of a port that nobody listens on.
func closedEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestEveryCommandHasAnExample(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example, or no short description", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}

func TestMistakesAreUsageErrors(t *testing.T) {
	for _, args := range []string{
		"nonsense",
		"backup nonsense",
		"status --nonsense",
		"status extra",
		"status --endpoint 127.0.0.1:8000",
		"conflicts --limit 0",
		"conflicts --limit many",
		"apply",
		"plan",
		"apply -f",
		"backup create",
		"backup describe",
		"backup describe one two",
		"backup describe one --backup two",
		"restore",
		"restore --backup one",
		"restore --to orders",
		"server",
		"dev --port 70000",
		"dev delay far",
		"dev partition",
	} {
		var usage usageError
		if _, _, err := try(t, strings.Fields(args)...); !errors.As(err, &usage) {
			t.Errorf("%s: %v, want a usageError", args, err)
		}
	}
	d := startDev(t)
	var usage usageError
	if _, _, err := try(t, "status", "-o", "xml", "--data", d.dir); !errors.As(err, &usage) {
		t.Errorf("-o xml: %v, want a usageError", err)
	}
}

func TestARegionThatDoesNotAnswerIsNamedAndTheOthersAreShown(t *testing.T) {
	d := startDev(t)
	closed := closedEndpoint(t)
	for _, verb := range []string{"status", "lag", "conflicts", "backup list"} {
		args := append(strings.Fields(verb), "--endpoint", d.clients[0].url+","+closed)
		stdout, _, err := try(t, args...)
		if err == nil || !strings.Contains(err.Error(), closed+" does not answer") {
			t.Errorf("%s: %v, want an error that names %s", verb, err, closed)
		}
		if stdout == "" {
			t.Errorf("%s shows nothing of the region that answers", verb)
		}
	}
	if _, _, err := try(t, "status", "--endpoint", closed); err == nil || !strings.Contains(err.Error(), "commutator dev") {
		t.Errorf("nothing answers: %v, want an error that says what to do", err)
	}
	for _, where := range [][]string{{"--data", d.dir}, {"--endpoint", d.clients[0].url}} {
		args := append([]string{"status", "--region", "sa-east-1"}, where...)
		if _, _, err := try(t, args...); err == nil || !strings.Contains(err.Error(), d.clients[0].region) {
			t.Errorf("%s: a region that is not there: %v, want an error that says which are", args, err)
		}
	}
}

func TestWithTheWrongKeyPairTheErrorSaysWhatToDo(t *testing.T) {
	d := startDev(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "else")
	for _, verb := range []string{"status", "backup create --table orders"} {
		_, _, err := try(t, append(strings.Fields(verb), "--data", d.dir)...)
		if err == nil || !strings.Contains(hint(err), "AWS_ACCESS_KEY_ID") {
			t.Errorf("%s: %v with the hint %q", verb, err, hint(err))
		}
	}
}

func TestDevShowsNoSecretButItsOwn(t *testing.T) {
	own := []node.Credential{{AccessKey: devKey, SecretKey: devKey}}
	theirs := []node.Credential{{AccessKey: "app", SecretKey: "s3cr3t"}}
	for _, c := range []struct {
		cfg  node.DevConfig
		want node.Credential
	}{
		{node.DevConfig{Credentials: own}, own[0]},
		{node.DevConfig{Credentials: own, Keys: "keys.yaml"}, own[0]},
		{node.DevConfig{Credentials: theirs}, node.Credential{AccessKey: "app", SecretKey: "'its secret'"}},
		{node.DevConfig{Keys: "keys.yaml"}, node.Credential{AccessKey: "'one of keys.yaml'", SecretKey: "'its secret'"}},
		{node.DevConfig{Credentials: theirs, Auth: "off"}, node.Credential{AccessKey: "any", SecretKey: "any"}},
	} {
		if got := shownKey(c.cfg); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.cfg, got, c.want)
		}
	}
}
