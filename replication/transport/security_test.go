package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/replication"
)

// authority signs certificates of nodes.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	a.cert, a.key = template, newKey(t)
	a.cert, _ = a.sign(template, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c, der
}

// security is of a node with a certificate of a, which others must have one of trusted for.
func (a *authority) security(uri string, until time.Time, trusted *authority) *Security {
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	_, der := a.sign(template, key)
	pool := x509.NewCertPool()
	pool.AddCert(trusted.cert)
	return &Security{Cluster: "prod", Load: func() (*tls.Certificate, *x509.CertPool, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool, nil
	}}
}

// serveSecurely serves a source, and returns a client of it that believes to call region.
func serveSecurely(t *testing.T, server, client *Security, region string) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(server)
	Register(s, newOrigin())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	c, err := Dial(region, func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	}, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestOnlyNodesOfTheClusterAreHeardAndOnlyInTheirOwnName(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	const east, west = "commutator://prod/us-east-1/a", "commutator://prod/eu-west-1/b"
	good := ours.security(east, soon, ours)
	for name, c := range map[string]struct {
		server, client *Security
		region, claims string
		want           string // "": it is heard
	}{
		"as it should be":                  {good, ours.security(west, soon, ours), "us-east-1", "eu-west-1", ""},
		"in another's name":                {good, ours.security(west, soon, ours), "us-east-1", "ap-south-1", "speaks for"},
		"another region answers":           {good, ours.security(west, soon, ours), "ap-south-1", "eu-west-1", "answers for"},
		"a client of another authority":    {good, other.security(west, soon, ours), "us-east-1", "eu-west-1", "Unavailable"},
		"a server of another authority":    {other.security(east, soon, ours), ours.security(west, soon, ours), "us-east-1", "eu-west-1", "authority"},
		"a client of another cluster":      {good, ours.security("commutator://test/eu-west-1/b", soon, ours), "us-east-1", "eu-west-1", "Unavailable"},
		"a server of another cluster":      {ours.security("commutator://test/us-east-1/a", soon, ours), ours.security(west, soon, ours), "us-east-1", "eu-west-1", "cluster"},
		"a client whose time is over":      {good, ours.security(west, past, ours), "us-east-1", "eu-west-1", "Unavailable"},
		"a server whose time is over":      {ours.security(east, past, ours), ours.security(west, soon, ours), "us-east-1", "eu-west-1", "expired"},
		"a client that names nobody":       {good, ours.security("", soon, ours), "us-east-1", "eu-west-1", "Unavailable"},
		"a server that names nobody":       {ours.security("", soon, ours), ours.security(west, soon, ours), "us-east-1", "eu-west-1", "names no node"},
		"a client without a certificate":   {good, nil, "us-east-1", "eu-west-1", "Unavailable"},
		"a server without a certificate":   {nil, ours.security(west, soon, ours), "us-east-1", "eu-west-1", "Unavailable"},
		"nobody has one, all are believed": {nil, nil, "us-east-1", "ap-south-1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := serveSecurely(t, c.server, c.client, c.region)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := client.Exchange(ctx, replication.Tables{Region: c.claims})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("exchange: %v, want %q", err, c.want)
			}
			if c.want != "speaks for" {
				return
			}
			if err := client.Follow(ctx, replication.Resume{Region: c.claims}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("follow: %v", err)
			}
			if _, err := client.Beat(ctx, c.claims); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("beat: %v", err)
			}
			if err := client.Seed(ctx, replication.SeedRequest{Region: c.claims}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("seed: %v", err)
			}
			if err := client.Digest(ctx, replication.DigestRequest{Region: c.claims}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("digest: %v", err)
			}
			if err := client.List(ctx, replication.ListRequest{Region: c.claims}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("list: %v", err)
			}
			if err := client.Fetch(ctx, replication.FetchRequest{Region: c.claims}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("fetch: %v", err)
			}
		})
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	ours := newAuthority(t)
	good := ours.security("commutator://prod/us-east-1/a", time.Now().Add(time.Hour), ours)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(good)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	defer func() { s.Stop(); <-ended }()
	own, _, _ := good.Load()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*own}, NextProtos: []string{"h2"}})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 was spoken")
	}
}
