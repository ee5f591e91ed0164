// Package s3 is a backup archive in a bucket of S3-compatible storage, through minio-go.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/commutatordb/commutator/backup"
)

// Config says where the bucket is.
type Config struct {
	Endpoint             string // such as http://minio:9000; https unless it says http
	Bucket               string
	AccessKey, SecretKey string
	Region               string
}

// Archive keeps objects in a bucket.
type Archive struct {
	client *minio.Client
	bucket string
	name   string
}

var _ backup.Archive = (*Archive)(nil)

// Open returns the archive in a bucket. It does not connect yet.
func Open(cfg Config) (*Archive, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("s3: %q is no endpoint like http://minio:9000", cfg.Endpoint)
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""), Secure: u.Scheme == "https", Region: cfg.Region,
		BucketLookup: minio.BucketLookupAuto,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return &Archive{client, cfg.Bucket, "s3://" + cfg.Bucket + " at " + u.Host}, nil
}

// String is backup.Archive's.
func (a *Archive) String() string { return a.name }

// Put is backup.Archive's. The storage checks a checksum of what it received.
func (a *Archive) Put(ctx context.Context, name string, data []byte) error {
	_, err := a.client.PutObject(ctx, a.bucket, name, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{
		ContentType: "application/octet-stream", SendContentMd5: true, DisableMultipart: true,
	})
	if err != nil {
		return fmt.Errorf("s3: put %s: %w", name, err)
	}
	return nil
}

// Get is backup.Archive's.
func (a *Archive) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	o, err := a.client.GetObject(ctx, a.bucket, name, minio.GetObjectOptions{})
	if err != nil {
		return nil, fmt.Errorf("s3: get %s: %w", name, err)
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(o, limit+1))
	if r := minio.ToErrorResponse(err); r.Code == minio.NoSuchKey {
		return nil, backup.ErrNotFound
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("s3: get %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("s3: %s has more than %d bytes", name, limit)
	}
	return b, nil
}

// List is backup.Archive's.
func (a *Archive) List(ctx context.Context, prefix string, yield func(string, int64) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when yield has had enough
	for o := range a.client.ListObjects(ctx, a.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("s3: list %s: %w", prefix, o.Err)
		}
		if !yield(o.Key, o.Size) {
			return nil
		}
	}
	return ctx.Err()
}

// Delete is backup.Archive's.
func (a *Archive) Delete(ctx context.Context, name string) error {
	if err := a.client.RemoveObject(ctx, a.bucket, name, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("s3: delete %s: %w", name, err)
	}
	return nil
}
