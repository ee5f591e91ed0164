// Package miniotest starts a real MinIO server for a test: the binary that `make test` builds from its Go
// module and names in COMMUTATOR_MINIO.
package miniotest

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Server is a running MinIO with one bucket.
type Server struct {
	Endpoint  string
	Bucket    string
	AccessKey string
	SecretKey string
	Dir       string // where it keeps its data
}

// startLimit is how long the server may take until it is ready.
const startLimit = 30 * time.Second

// Start starts a server that ends with the test. Where no binary is named the test is skipped; `make
// test` always names one.
func Start(t testing.TB) Server {
	t.Helper()
	binary := os.Getenv("COMMUTATOR_MINIO")
	if binary == "" {
		t.Skip("COMMUTATOR_MINIO names no MinIO server; `make test` builds one")
	}
	s := Server{Bucket: "commutator", AccessKey: "commutator", SecretKey: "commutator-secret", Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.Dir, s.Bucket), 0o755); err != nil { // MinIO takes a folder for a bucket
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.Endpoint = "http://" + address
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "server", "--address", address, "--console-address", "127.0.0.1:0", s.Dir)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey, "MINIO_UPDATE=off", "MINIO_BROWSER=off")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait() // ends by the signal
	})
	deadline := time.Now().Add(startLimit)
	for {
		if a, err := http.Get(s.Endpoint + "/minio/health/ready"); err == nil {
			a.Body.Close()
			if a.StatusCode == http.StatusOK {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("MinIO is not ready after %s", startLimit)
		}
		time.Sleep(50 * time.Millisecond) // another process: it cannot tell us
	}
}
