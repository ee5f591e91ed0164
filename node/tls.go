package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/commutatordb/commutator/replication/transport"
)

// TLS is how this node proves to other regions who it is, and they to it. Without files nobody proves anything.
type TLS struct {
	CA      string `yaml:"ca"`      // file: the authority's certificate
	Cert    string `yaml:"cert"`    // file: this node's certificate
	Key     string `yaml:"key"`     // file: its private key
	Cluster string `yaml:"cluster"` // that certificates must name; default: commutator
}

const defaultCluster = "commutator"

func (t *TLS) given() bool { return t.CA != "" || t.Cert != "" || t.Key != "" }

// validate fills in what is not given, and returns what is wrong.
func (t *TLS) validate(c *Config) error {
	switch {
	case !t.given() && t.Cluster != "":
		return errors.New("tls: a cluster is given, and no ca, cert and key")
	case !t.given():
		return nil
	case t.CA == "" || t.Cert == "" || t.Key == "":
		return errors.New("tls: ca, cert and key belong together")
	}
	if t.Cluster == "" {
		t.Cluster = defaultCluster
	}
	own, _, err := t.load()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	who, err := transport.IdentityOf(own.Leaf)
	if err == nil && (who.Cluster != t.Cluster || who.Region != c.Region || who.Node != c.Node) {
		err = fmt.Errorf("%s is the certificate of node %s of region %s in cluster %s, not of %s of %s in %s", t.Cert, who.Node, who.Region, who.Cluster, c.Node, c.Region, t.Cluster)
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return nil
}

func (t *TLS) load() (*tls.Certificate, *x509.CertPool, error) {
	authority, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, nil, fmt.Errorf("%s holds no certificate", t.CA)
	}
	own, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	return &own, pool, err
}

// security is for the connections to other regions; nil without files.
func (t *TLS) security() *transport.Security {
	if !t.given() {
		return nil
	}
	return &transport.Security{Cluster: t.Cluster, Load: t.load}
}

// expiry is when this node's certificate ends, 0 without one, in seconds since the Unix epoch.
func (t *TLS) expiry() float64 {
	if !t.given() {
		return 0
	}
	own, _, err := t.load()
	if err != nil {
		return 0
	}
	return float64(own.Leaf.NotAfter.Unix())
}

// gossipKey decodes the key of the gossip between nodes; nil for none.
func gossipKey(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err == nil && len(key) != 32 {
		err = fmt.Errorf("%d bytes, not 32", len(key))
	}
	if err != nil {
		return nil, fmt.Errorf("gossipKey: %w: give 32 random bytes in base64, as `commutator certs --gossip-key` prints", err)
	}
	return key, nil
}

// NewGossipKey returns a random key for Config's GossipKey.
func NewGossipKey() string {
	var key [32]byte
	rand.Read(key[:]) // never fails: crypto/rand ends the process when it has no randomness
	return base64.StdEncoding.EncodeToString(key[:])
}

// The files that MakeCertificates makes in a directory. A node's are named REGION-NODE.pem and REGION-NODE-key.pem.
const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"
	caDays    = 3650
)

// MakeCertificates makes an authority in dir, unless there is one (half of one is an error), and a certificate of it for each identity, good for so many
// days. It returns the files made. Keys are readable by their owner alone.
func MakeCertificates(dir string, days int, now time.Time, identities ...transport.Identity) (made []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, caKey, err := readAuthority(dir)
	_, noCA := os.Lstat(filepath.Join(dir, caFile))
	_, noKey := os.Lstat(filepath.Join(dir, caKeyFile))
	if errors.Is(noCA, os.ErrNotExist) && errors.Is(noKey, os.ErrNotExist) {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "Commutator"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		if ca, caKey, err = makeCertificate(dir, caFile, caKeyFile, template, caDays, now, nil, nil); err != nil {
			return nil, err
		}
		made = append(made, filepath.Join(dir, caFile), filepath.Join(dir, caKeyFile))
	}
	if err != nil {
		return made, err
	}
	for _, i := range identities {
		name := i.Region + "-" + i.Node
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: i.Node + "." + i.Region}, URIs: []*url.URL{i.URI()}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if _, _, err := makeCertificate(dir, name+".pem", name+"-key.pem", template, days, now, ca, caKey); err != nil {
			return made, err
		}
		made = append(made, filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
	}
	return made, nil
}

func readAuthority(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, caFile), filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no ECDSA key", caKeyFile)
	}
	return pair.Leaf, key, nil
}

// makeCertificate signs a template by an authority, or by itself, and writes it and its key.
func makeCertificate(dir, file, keyFile string, template *x509.Certificate, days int, now time.Time, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	// An hour back, for nodes whose clocks lag.
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.AddDate(0, 0, days)
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	return made, key, err
}
