package s3_test

import (
	"testing"

	"github.com/commutatordb/commutator/backup/archivetest"
	"github.com/commutatordb/commutator/backup/s3"
	"github.com/commutatordb/commutator/internal/miniotest"
)

func TestMinIOKeepsTheArchivesContract(t *testing.T) {
	server := miniotest.Start(t)
	a, err := s3.Open(s3.Config{
		Endpoint: server.Endpoint, Bucket: server.Bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey, Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	archivetest.Run(t, a)
}

func TestAWrongEndpointIsRefused(t *testing.T) {
	for _, endpoint := range []string{"", "minio:9000", "ftp://minio", "http://"} {
		if _, err := s3.Open(s3.Config{Endpoint: endpoint, Bucket: "b"}); err == nil {
			t.Errorf("endpoint %q is taken", endpoint)
		}
	}
}
