package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/commutatordb/commutator/admin"
)

// operatorQuestion is the first byte of a question of one node to another that is an operator's request, passed on; all others are
// region's. Behind it stand the length of the target (uvarint), the target, and the request's body. The answer is a byte, 0 and the answer's body or
// 1 and the error, as JSON.
const operatorQuestion = 0xFF

// operate carries out the operator API. What only the node that leads does, it is asked for: whoever signed the request has been looked at here.
func (e *Engine) operate(ctx context.Context, target string, body []byte) ([]byte, error) {
	answer, err := e.operator.Handle(ctx, target, body)
	leader := e.region.Leader()
	if !errors.Is(err, admin.ErrElsewhere) || leader == 0 || leader == e.cfg.NodeID || e.cfg.Ask == nil {
		return answer, err
	}
	q := binary.AppendUvarint([]byte{operatorQuestion}, uint64(len(target)))
	got, asked := e.cfg.Ask(ctx, leader, append(append(q, target...), body...))
	if asked != nil || len(got) == 0 {
		return nil, err // whoever asks may ask it of another node
	}
	if got[0] == 0 {
		return got[1:], nil
	}
	refusal := &admin.Error{}
	if json.Unmarshal(got[1:], refusal) != nil || refusal.Code == "" {
		return nil, err
	}
	return nil, refusal
}

// Answer answers another node of the region: about partitions, and operators' requests that it has passed on.
func (e *Engine) Answer(ctx context.Context, q []byte) []byte {
	if len(q) == 0 || q[0] != operatorQuestion {
		return e.region.Answer(ctx, q)
	}
	n, size := binary.Uvarint(q[1:])
	var answer []byte
	var err error = admin.ErrElsewhere
	if size > 0 && n <= uint64(len(q)-1-size) {
		target, body := q[1+size:1+size+int(n)], q[1+size+int(n):]
		answer, err = e.operator.Handle(ctx, string(target), body)
	}
	if err == nil {
		return append([]byte{0}, answer...)
	}
	refusal := (*admin.Error)(nil)
	if !errors.As(err, &refusal) {
		refusal = &admin.Error{Code: "InternalServerError", Message: err.Error()}
	}
	text, err := json.Marshal(refusal)
	if err != nil {
		return nil
	}
	return append([]byte{1}, text...)
}
