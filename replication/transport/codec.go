package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/internal/mutant"
)

// codec puts a CRC-32C (4 bytes, little-endian) behind every message, and refuses one that is not as it was
// sent: a batch's own sum covers its changes only, not from where to where they go. A sequence number or a
// clock with a bit too many would be believed.
type codec struct{}

var errSum = errors.New("transport: a message's checksum is wrong")

// Marshal is encoding.Codec's.
func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("transport: %T is no message", v)
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, proto.Size(m)+crc32.Size), m)
	if err != nil {
		return nil, err
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// Unmarshal is encoding.Codec's.
func (codec) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("transport: %T is no message", v)
	}
	n := len(b) - crc32.Size
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) && !mutant.On(mutant.WireSumIgnored) {
		return errSum
	}
	return proto.Unmarshal(b[:n], m)
}

// Name is encoding.Codec's: part of the content type.
func (codec) Name() string { return "proto-crc32c" }
