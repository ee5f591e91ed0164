package api

import (
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/table"
)

func (c *constraints) stream(s *streamShape) {
	if s == nil {
		return
	}
	if s.StreamEnabled == nil {
		c.required("streamSpecification.streamEnabled")
	}
	if s.StreamViewType != nil {
		c.enum(*s.StreamViewType, "streamSpecification.streamViewType", "OLD_IMAGE", "KEYS_ONLY", "NEW_AND_OLD_IMAGES", "NEW_IMAGE")
	}
}

func (c *constraints) sse(s *sseShape) {
	if s == nil {
		return
	}
	if s.SSEType != nil {
		c.enum(*s.SSEType, "sSESpecification.sSEType", "AES256", "KMS")
	}
	if s.KMSMasterKeyId != nil {
		c.length(*s.KMSMasterKeyId, "sSESpecification.kMSMasterKeyId", 1, 0)
	}
}

const standardClass = "STANDARD"

func checkClass(class *string) error {
	if class != nil && *class != standardClass && *class != "STANDARD_INFREQUENT_ACCESS" {
		return invalid("Invalid table-class parameter provided. Please try again with a valid table-class value: [STANDARD, STANDARD_INFREQUENT_ACCESS].")
	}
	return nil
}

// newStream returns the stream of a new table.
func (h *Handler) newStream(given *streamShape) (*table.Stream, error) {
	switch {
	case given == nil:
		return nil, nil
	case *given.StreamEnabled && given.StreamViewType == nil:
		return nil, parameter("Table is being created with a stream enabled, UpdateViewType is required")
	case !*given.StreamEnabled && given.StreamViewType != nil:
		return nil, parameter("Table is being created with a stream disabled, UpdateViewType should not be specified")
	case !*given.StreamEnabled:
		return nil, nil
	}
	return h.stream(*given.StreamViewType), nil
}

// stream returns an enabled stream whose label is the present moment, as the service has it.
func (h *Handler) stream(view string) *table.Stream {
	now := h.cfg.Now().UTC()
	return &table.Stream{Enabled: true, ViewType: view, Label: now.Format("2006-01-02T15:04:05.") + fmt.Sprintf("%03d", now.Nanosecond()/int(time.Millisecond))}
}

// checkUpdate checks what a stream is asked to become.
func (s *streamShape) checkUpdate() error {
	switch {
	case s == nil:
	case *s.StreamEnabled && s.StreamViewType == nil:
		return parameter("If stream is being enabled then UpdateViewType is required")
	case !*s.StreamEnabled && s.StreamViewType != nil:
		return parameter("If stream is being disabled, then UpdateViewType must not be specified")
	}
	return nil
}

// updateStream sets the stream. That of a global table may neither be changed nor switched off.
func (h *Handler) updateStream(d *table.Definition, given *streamShape) error {
	enabled := d.Stream != nil && d.Stream.Enabled
	switch {
	case given == nil:
	case *given.StreamEnabled && enabled:
		return invalid("Table already has an enabled stream: TableName: %s", d.Schema.Name)
	case *given.StreamEnabled:
		d.Stream = h.stream(*given.StreamViewType)
	case !enabled:
		return invalid("Table has no stream to disable: TableName: %s", d.Schema.Name)
	case len(d.Others(h.cfg.Region.Name())) > 0:
		return parameter("Disabling Stream is not allowed for a Global Table replica.")
	default:
		d.Stream = &table.Stream{ViewType: d.Stream.ViewType, Label: d.Stream.Label}
	}
	return nil
}

// setting returns the encryption setting that is asked for; nil is the default, with a key of the service's own. One that does not say
// whether it is enabled is, if it says anything at all.
func (s *sseShape) setting() (*table.SSE, error) {
	if s == nil {
		return nil, nil
	}
	enabled := s.SSEType != nil || s.KMSMasterKeyId != nil
	if s.Enabled != nil {
		enabled = *s.Enabled
	}
	switch {
	case !enabled && s.SSEType != nil:
		return nil, parameter("SSEType can not be specified if Enabled is false")
	case !enabled && s.KMSMasterKeyId != nil:
		return nil, parameter("KMSMasterKeyId can not be specified if Enabled is false")
	case !enabled:
		return nil, nil
	case s.SSEType != nil && *s.SSEType != "KMS":
		return nil, parameter("SSEType %s is not supported", *s.SSEType)
	case s.SSEType == nil && s.KMSMasterKeyId != nil:
		return nil, parameter("SSEType KMS is required if KMSMasterKeyId is specified")
	}
	sse := &table.SSE{Enabled: true, Type: "KMS"}
	if s.KMSMasterKeyId != nil {
		sse.KeyID = *s.KMSMasterKeyId
	}
	return sse, nil
}

// updateSSE sets the encryption. What is in force already is refused where the service refuses it.
func (h *Handler) updateSSE(d *table.Definition, given *sseShape) error {
	if given == nil {
		return nil
	}
	own := h.cfg.Region.Name()
	sse, err := given.setting()
	switch {
	case err != nil:
		return err
	case sse == nil && d.SSE == nil:
		return parameter("Table is already encrypted by default")
	case sse != nil && d.SSE != nil && sse.KeyID == h.keyARN(d.In(own).SSE.KeyID, own):
		return parameter("Table is already encrypted with given KMSMasterKeyId. Use KMSMasterKeyId parameter if you want to change Master Key")
	}
	if sse != nil && sse.KeyID != "" && d.SSE != nil && slices.ContainsFunc(d.Overrides, func(o table.Override) bool { return o.Region == own && o.KeyID != "" }) {
		d.Override(own, func(o *table.Override) { o.KeyID = sse.KeyID }) // keys are each region's own
		return nil
	}
	if sse == nil || sse.KeyID == "" {
		d.OverrideNoMore(func(o *table.Override) { o.KeyID = "" })
	}
	d.SSE = sse
	return nil
}
