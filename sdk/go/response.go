package phasor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"phasor/internal/wait"
	operation "phasor/internal/wit/phasor_plugin_operation"
	host "phasor/internal/wit/phasor_plugin_response"
	witTypes "phasor/internal/wit/types"
)

// Errors of an answer that cannot be changed or written.
var (
	// ErrInvalidResponse is for what is not a valid name, value or status.
	ErrInvalidResponse = errors.New("not a valid name, value or status")
	// ErrHeadSent says that the head has been sent.
	ErrHeadSent = errors.New("the answer's head has been sent")
	// ErrEnded says that the answer has ended.
	ErrEnded = errors.New("the answer has ended")
	// ErrClientGone says that the client has left.
	ErrClientGone = errors.New("the client is gone")
)

type sent = witTypes.Result[witTypes.Unit, host.ResponseError]

func responseError(result sent) error {
	if result.IsOk() {
		return nil
	}
	switch code := result.Err(); code {
	case host.ResponseErrorInvalid:
		return ErrInvalidResponse
	case host.ResponseErrorHeadSent:
		return ErrHeadSent
	case host.ResponseErrorEnded:
		return ErrEnded
	case host.ResponseErrorClosed:
		return ErrClientGone
	default:
		return fmt.Errorf("response-error %d", code)
	}
}

// Send sends the whole answer in one host call; headers replace those of the same name. A handler
// that returns nil afterwards ends the request with it.
func (r *Request) Send(status int, headers []Header, body []byte) error {
	r.live()
	err := responseError(host.Send(uint16(status), lower(headers), body))
	// A client that has left is nobody's fault, and nothing is left to be done.
	if err == nil || err == ErrClientGone {
		r.answered = true
		return nil
	}
	return err
}

// Text answers 200 with plain text.
func (r *Request) Text(text string) error {
	return r.Send(200, []Header{{"content-type", "text/plain"}}, []byte(text))
}

// HTML answers 200 with HTML.
func (r *Request) HTML(text string) error {
	return r.Send(200, []Header{{"content-type", "text/html; charset=utf-8"}}, []byte(text))
}

// JSON answers 200 with a value as JSON.
func (r *Request) JSON(value any) error {
	bytes, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return r.Send(200, []Header{{"content-type", "application/json"}}, bytes)
}

// Response is the answer: its head until that is sent, and its body in pieces.
func (r *Request) Response() *Response {
	return &Response{r}
}

// A Response is an [io.Writer]: what is written to it is the answer's body, sent in pieces.
type Response struct {
	request *Request
}

// Status is 0 while there is none.
func (a *Response) Status() int {
	a.request.live()
	return int(host.Status())
}

// SetStatus sets the status.
func (a *Response) SetStatus(status int) error {
	a.request.live()
	return responseError(host.SetStatus(uint16(status)))
}

// Header is the first value of a header; empty when there is none.
func (a *Response) Header(name string) string {
	value, _ := a.LookupHeader(name)
	return value
}

// LookupHeader is the first value of a header, and whether there is one.
func (a *Response) LookupHeader(name string) (string, bool) {
	a.request.live()
	return text(host.GetHeader(name))
}

// Headers are all of them.
func (a *Response) Headers() []Header {
	a.request.live()
	return lift(host.GetHeaders())
}

// SetHeader replaces all values of a header.
func (a *Response) SetHeader(name, value string) error {
	a.request.live()
	return responseError(host.SetHeader(name, [][]byte{[]byte(value)}))
}

// AddHeader adds one more value.
func (a *Response) AddHeader(name, value string) error {
	a.request.live()
	return responseError(host.AddHeader(name, []byte(value)))
}

// RemoveHeader takes a header away.
func (a *Response) RemoveHeader(name string) error {
	a.request.live()
	return responseError(host.SetHeader(name, nil))
}

// HeadSent tells whether the head has been sent.
func (a *Response) HeadSent() bool {
	a.request.live()
	return host.HeadSent()
}

// Write sends the head if that is still to be done, then a piece of the body. It waits while the
// client takes nothing.
func (a *Response) Write(bytes []byte) (int, error) {
	a.request.live()
	result, err := wait.Call(context.Background(),
		func() sent { return host.Write(bytes) },
		func() *operation.Operation { return host.BeginWrite(bytes) },
		host.EndWrite,
	)
	if err == nil {
		err = responseError(result)
	}
	if err != nil {
		return 0, err
	}
	return len(bytes), nil
}

// WriteString is Write for a string.
func (a *Response) WriteString(text string) (int, error) {
	return a.Write([]byte(text))
}

// Finish ends the body; the handler may go on working.
func (a *Response) Finish() error {
	a.request.live()
	return responseError(host.Finish())
}
