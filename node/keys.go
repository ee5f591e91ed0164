package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// keysEvery is how often the keys file is looked at: a key that was taken out of it works at most this long.
	keysEvery = 2 * time.Second
	// maxKeysFile bounds what is read of it, in bytes.
	maxKeysFile = 1 << 20
)

// keyring holds the key pairs that may sign requests: those of the configuration, and those of a file that may
// change while the node runs. Several of one client may be good at the same time, so that it can change over from
// one to the next.
//
// Secrets stand in no log line and no error.
type keyring struct {
	fixed  []Credential
	path   string // "" for no file
	logger *slog.Logger

	pairs atomic.Pointer[map[string]string]
	ask   chan struct{} // to look at the file now; one question waits at most

	// Of the last look at the file; watch's alone.
	seen fs.FileInfo // nil: it was not there
	err  string      // why it could not be read then, "" if it could
}

// openKeyring reads the file, which has to be good now. Later a bad one changes nothing.
func openKeyring(fixed []Credential, path string, logger *slog.Logger) (*keyring, error) {
	k := &keyring{fixed: fixed, path: path, logger: logger, ask: make(chan struct{}, 1)}
	k.seen, _ = os.Stat(path) // before it is read: a change in between is seen later
	pairs, err := k.read()
	if err != nil {
		return nil, fmt.Errorf("node: keys: %w", err)
	}
	k.pairs.Store(&pairs)
	return k, nil
}

// secret returns a key's secret. It is sigv4.Verifier's Lookup.
func (k *keyring) secret(accessKey string) (string, bool) {
	secret, ok := (*k.pairs.Load())[accessKey]
	return secret, ok
}

// watch reads the file again when it has changed, until ctx ends.
func (k *keyring) watch(ctx context.Context) error {
	if k.path == "" {
		return nil
	}
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.ask:
			k.seen = nil // whatever it looks like
		}
		k.reread()
	}
}

// readNow has watch read the file, changed or not.
func (k *keyring) readNow() {
	select {
	case k.ask <- struct{}{}:
	default: // it is about to
	}
}

// reread takes over what the file has now. A file that cannot be read, or says nothing that makes sense, changes
// nothing: that is said once, as an error.
func (k *keyring) reread() {
	now, err := os.Stat(k.path)
	if err == nil && k.seen != nil && os.SameFile(now, k.seen) && now.ModTime().Equal(k.seen.ModTime()) && now.Size() == k.seen.Size() {
		return
	}
	missing := err != nil
	k.seen = now
	pairs, err := k.read()
	if err != nil {
		if !missing || k.err != err.Error() {
			k.err = err.Error()
			k.logger.Error("node: the keys file is not good; the keys stay as they were", "err", err)
		}
		return
	}
	k.err = ""
	k.pairs.Store(&pairs)
	k.logger.Info("node: keys read", "file", k.path, "keys", len(pairs))
}

// read returns all pairs by their access keys.
func (k *keyring) read() (map[string]string, error) {
	list := k.fixed
	if k.path != "" {
		more, err := k.readFile()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.path, err)
		}
		list = append(list[:len(list):len(list)], more...)
	}
	pairs := make(map[string]string, len(list))
	for _, c := range list {
		if c.AccessKey == "" || c.SecretKey == "" {
			return nil, errors.New("a key pair lacks accessKey or secretKey")
		}
		if _, twice := pairs[c.AccessKey]; twice {
			return nil, fmt.Errorf("%s is given twice", c.AccessKey)
		}
		pairs[c.AccessKey] = c.SecretKey
	}
	return pairs, nil
}

// quoted is what yaml shows of a value in its errors: here it may be a secret.
var quoted = regexp.MustCompile("(?s) ?`.*`")

func (k *keyring) readFile() ([]Credential, error) {
	f, err := os.Open(k.path)
	if err != nil {
		return nil, errors.Unwrap(err) // a PathError: callers name the path
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKeysFile {
		return nil, errors.New("it is larger than 1 MB")
	}
	var list []Credential
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	switch err := d.Decode(&list); {
	case errors.Is(err, io.EOF) || err == nil && len(list) == 0:
		return nil, errors.New("there is no key in it")
	case err != nil:
		return nil, errors.New(quoted.ReplaceAllString(inType.ReplaceAllString(err.Error(), ""), ""))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second document in it")
	}
	return list, nil
}
