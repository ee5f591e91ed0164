package api

import (
	"hash/crc32"
	"net/http"
	"strconv"
)

// errCrowded refuses a request before it is read. SDKs wait and send it again.
var (
	errCrowded  = dynamoError("ThrottlingException", "Rate of requests exceeds what can be carried out at present. Reduce the rate, and send this request again.")
	crowdedBody = errCrowded.append(nil)
	crowdedHead = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: " + strconv.Itoa(len(crowdedBody)) +
		"\r\nx-amz-crc32: " + strconv.FormatUint(uint64(crc32.ChecksumIEEE(crowdedBody)), 10) + "\r\nDate: "
)

// AppendCrowded appends the whole answer of HTTP/1.1 to a request that is refused, because there is a crowd, by whoever holds the connection.
func (h *Handler) AppendCrowded(dst []byte) []byte {
	q := h.pending.Get().(*request)
	defer h.release(q)
	dst = h.cfg.Now().UTC().AppendFormat(append(dst, crowdedHead...), http.TimeFormat)
	dst = append(append(dst, "\r\nx-amzn-RequestId: "...), q.newID()...)
	return append(append(dst, "\r\n\r\n"...), crowdedBody...)
}
