package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Security has regions prove to each other who they are: TLS 1.3, a certificate on both sides, of one authority, that names the
// cluster, the region and the node:
//
//	commutator://CLUSTER/REGION/NODE     a URI among the certificate's alternative names
//
// A nil *Security asks nobody.
type Security struct {
	Cluster string
	// Load returns this node's certificate and the authorities that others' must be of. It is called for every connection, so
	// that what is changed on disk counts from the next one on.
	Load func() (*tls.Certificate, *x509.CertPool, error)
}

// Identity is whom a certificate names.
type Identity struct{ Cluster, Region, Node string }

// URI is how a certificate names an identity.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: "commutator", Host: i.Cluster, Path: "/" + i.Region + "/" + i.Node}
}

// IdentityOf reads whom a certificate names.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	for _, u := range c.URIs {
		if region, node, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/"); u.Scheme == "commutator" && ok && region != "" && node != "" {
			return Identity{u.Host, region, node}, nil
		}
	}
	return Identity{}, errors.New("transport: the certificate names no node: a URI like commutator://CLUSTER/REGION/NODE")
}

func (s *Security) serverCredentials() credentials.TransportCredentials {
	if s == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		own, authorities, err := s.Load()
		if err != nil {
			return nil, err
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*own},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities,
			VerifyConnection: func(c tls.ConnectionState) error {
				_, err := s.check(c.PeerCertificates[0])
				return err
			},
		}, nil
	}})
}

// clientCredentials are for connections to the named region, and to the named node of it; any for "".
func (s *Security) clientCredentials(region, node string) credentials.TransportCredentials {
	if s == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			own, _, err := s.Load()
			return own, err
		},
		// Who a node is does not hang on the address it was found at, so VerifyConnection checks in place of crypto/tls: by the
		// authorities as they are now, and the region's name.
		InsecureSkipVerify: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			_, authorities, err := s.Load()
			if err != nil {
				return err
			}
			between := x509.NewCertPool()
			for _, c := range c.PeerCertificates[1:] {
				between.AddCert(c)
			}
			if _, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				return err
			}
			who, err := s.check(c.PeerCertificates[0])
			if err == nil && who.Region != region {
				err = fmt.Errorf("transport: a node of region %s answers for region %s", who.Region, region)
			}
			if err == nil && node != "" && who.Node != node {
				err = fmt.Errorf("transport: node %s answers for node %s", who.Node, node)
			}
			return err
		},
	})
}

// check returns whom another node's certificate names, if that is one of this cluster.
func (s *Security) check(c *x509.Certificate) (Identity, error) {
	who, err := IdentityOf(c)
	if err == nil && who.Cluster != s.Cluster {
		err = fmt.Errorf("transport: the certificate is of cluster %q, not %q", who.Cluster, s.Cluster)
	}
	return who, err
}

// speaksFor refuses a call in the name of another region than its caller's certificate names. Without certificates everybody is
// believed.
func speaksFor(ctx context.Context, region string) error {
	who, known, err := Caller(ctx)
	if err == nil && known && who.Region != region {
		err = fmt.Errorf("transport: a node of region %s speaks for region %s", who.Region, region)
	}
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	return nil
}

// Caller returns whom the certificate of a call's caller names; known is false without certificates.
func Caller(ctx context.Context) (who Identity, known bool, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return who, false, nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return who, false, nil
	}
	who, err = IdentityOf(info.State.PeerCertificates[0])
	return who, true, err
}
