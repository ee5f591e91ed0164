package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/commutatordb/commutator/api/sigv4"
	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// Error is an answer that refuses a request, as the service gives it.
type Error struct {
	kind    string // the value of __type
	status  int
	message string
	item    []byte // ConditionalCheckFailedException: the item, stored form; nil for none

	throttled []throttlingReason
}

func (e *Error) Error() string { return e.message }

// ErrorCode is the exception's name.
func (e *Error) ErrorCode() string {
	_, name, _ := strings.Cut(e.kind, "#")
	return name
}

// Name spaces of __type. Which error is in which: answers of the service, recorded in public.
const (
	spaceService  = "com.amazon.coral.service#"
	spaceValidate = "com.amazon.coral.validate#"
	spaceDynamo   = "com.amazonaws.dynamodb.v20120810#"
)

// append writes the error's body.
func (e *Error) append(dst []byte) []byte {
	dst = append(dst, `{"__type":"`...)
	dst = append(append(dst, e.kind...), '"')
	if e.item != nil {
		if out, err := wire.AppendItem(append(dst, `,"Item":`...), e.item); err == nil {
			dst = out
		}
	}
	if len(e.throttled) > 0 {
		dst = e.appendThrottled(dst)
	}
	switch {
	case e.message == "":
		return append(dst, '}')
	case e.kind == spaceService+"SerializationException":
		dst = append(dst, `,"Message":`...) // the service spells it so here
	default:
		dst = append(dst, `,"message":`...)
	}
	return append(wire.AppendString(dst, e.message), '}')
}

// appendThrottled writes the reasons of a throttling error. The model spells the member in two ways.
func (e *Error) appendThrottled(dst []byte) []byte {
	name := `,"ThrottlingReasons":[`
	if strings.HasSuffix(e.kind, "#ThrottlingException") {
		name = `,"throttlingReasons":[`
	}
	dst = append(dst, name...)
	for i, r := range e.throttled {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = wire.AppendString(append(dst, `{"reason":`...), r.reason)
		dst = append(wire.AppendString(append(dst, `,"resource":`...), r.resource), '}')
	}
	return append(dst, ']')
}

// invalid is a ValidationException.
func invalid(format string, args ...any) *Error {
	return &Error{kind: spaceValidate + "ValidationException", status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

func dynamoError(name, format string, args ...any) *Error {
	return &Error{kind: spaceDynamo + name, status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

func serviceError(name, message string) *Error {
	return &Error{kind: spaceService + name, status: http.StatusBadRequest, message: message}
}

// errUnknownOperation and errNoJSON have no message, as the service's have none.
func errUnknownOperation() *Error { return serviceError("UnknownOperationException", "") }

func errNoJSON() *Error { return errUnreadable("") }

// notYet refuses an operation of the model that is not there.
func notYet(name, reason string) *Error {
	return serviceError("UnknownOperationException", "Commutator does not have the operation "+name+" yet: "+reason+" (see docs/compat.md)")
}

func errUnreadable(message string) *Error { return serviceError("SerializationException", message) }

func errBodyTooLarge() *Error {
	return &Error{kind: spaceService + "RequestEntityTooLargeException", status: http.StatusRequestEntityTooLarge, message: "Request body exceeds the limit of 16 MB"}
}

// operatorError is an error of the operator API: one that has an ErrorCode is the caller's fault, any
// other this node's, and the operator is told what it is.
func operatorError(err error) *Error {
	if e := (interface {
		error
		ErrorCode() string
	})(nil); errors.As(err, &e) {
		return dynamoError(e.ErrorCode(), "%s", err)
	}
	return &Error{kind: spaceDynamo + "InternalServerError", status: http.StatusInternalServerError, message: err.Error()}
}

func errInternal() *Error {
	return &Error{kind: spaceDynamo + "InternalServerError", status: http.StatusInternalServerError, message: "The request could not be processed; it may be sent again"}
}

// errNoTable is the data operations' answer; errTableNotFound that of the table operations.
func errNoTable() *Error {
	return dynamoError("ResourceNotFoundException", "Requested resource not found")
}

func errTableNotFound(name string) *Error {
	return dynamoError("ResourceNotFoundException", "Requested resource not found: Table: %s not found", name)
}

func errNoResource(arn string) *Error {
	return dynamoError("ResourceNotFoundException", "Requested resource not found: ResourceArn: %s not found", arn)
}

func errInUse(format string, args ...any) *Error {
	return dynamoError("ResourceInUseException", format, args...)
}

func errLimit(format string, args ...any) *Error {
	return dynamoError("LimitExceededException", format, args...)
}

// errCondition is the answer to a condition that did not hold; item is what it was held against where
// the client wants to see it.
func errCondition(item []byte) *Error {
	e := dynamoError("ConditionalCheckFailedException", "The conditional request failed")
	e.item = item
	return e
}

func errThrottled() *Error {
	return dynamoError("ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API.")
}

// errFenced refuses a write while the region takes none. No such error is the service's: its clocks are its own.
func errFenced(region string, why error) *Error {
	return dynamoError("RegionFencedException", "Region %s takes no writes at present: %s. Other regions do.", region, why)
}

// errFull refuses a write for want of space. The service has an unlimited disk; SDKs send again what is refused with its status.
func errFull() *Error {
	return &Error{kind: spaceDynamo + "ServiceUnavailable", status: http.StatusServiceUnavailable, message: "The disk has too little space left: writes are refused until there is more. Reads go on."}
}

// translate turns whatever an operation returned into an answer. What it does not know is this region's
// fault, and a 500.
func (h *Handler) translate(err error) *Error {
	var (
		answer     *Error
		serial     *wire.SerializationError
		value      *wire.ValidationError
		expression *expr.Error
		key        *table.KeyError
	)
	switch {
	case errors.As(err, &answer):
		return answer
	case errors.As(err, &serial):
		return errUnreadable(serial.Message) // "" for what is no JSON
	case errors.As(err, &value):
		return invalid("%s", value.Message)
	case errors.As(err, &expression):
		return invalid("%s", expression.Message)
	case errors.As(err, &key):
		return invalid("%s", key.Message)
	case errors.Is(err, op.ErrUpdateTooLarge):
		return invalid("%s", op.ErrUpdateTooLarge)
	case errors.Is(err, region.ErrNoTable), errors.Is(err, region.ErrNotActive):
		return errNoTable()
	case h.cfg.Overloaded(err):
		return errThrottled()
	case errors.Is(err, region.ErrFull):
		return errFull()
	}
	return errInternal()
}

// authError is what verifying a signature returned, as an answer.
func authError(err error) error {
	e := (*sigv4.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	return serviceError(e.Type, e.Message)
}
