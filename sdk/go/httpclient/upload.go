package httpclient

import (
	"context"
	"errors"

	"phasor/internal/wait"
	host "phasor/internal/wit/phasor_plugin_http_client"
	operation "phasor/internal/wit/phasor_plugin_operation"
	witTypes "phasor/internal/wit/types"
)

// ErrUnwanted says that the server takes no more of a body: it has answered already, or is gone;
// [Upload.Finish] tells.
var ErrUnwanted = errors.New("http: the server wants no more of the body")

// An Upload is a request whose body is sent as it is made. Close it.
type Upload struct {
	ctx  context.Context
	host *host.Upload
}

// Upload begins to send; Body, Timeout and Limit of the request hold for nothing. With a
// Content-Length among its headers the body has to be as long, without one it is sent in chunks. The
// context holds for the body and the answer.
func (r *Request) Upload(ctx context.Context) (*Upload, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	begun := host.UploadBegin(r.lower())
	if begun.IsErr() {
		return nil, lift(begun.Err())
	}
	return &Upload{ctx, begun.Ok()}, nil
}

type written = witTypes.Result[bool, host.ClientError]

// Write sends a piece of the body, and waits while the server does not take the last one.
func (u *Upload) Write(bytes []byte) (int, error) {
	if len(bytes) == 0 {
		return 0, nil
	}
	result, err := wait.Call(u.ctx,
		func() written { return u.host.Write(bytes, 0) },
		func() *operation.Operation { return u.host.BeginWrite(bytes, 0) },
		host.UploadEndWrite,
	)
	switch {
	case err != nil:
		return 0, err
	case result.IsErr():
		return 0, lift(result.Err())
	case !result.Ok():
		return 0, ErrUnwanted
	default:
		return len(bytes), nil
	}
}

// Finish ends the body and waits for the answer's head.
func (u *Upload) Finish() (*Streaming, error) {
	result, err := wait.Call(u.ctx,
		func() opened { return u.host.Finish(0) },
		func() *operation.Operation { return u.host.BeginFinish(0) },
		host.UploadEndFinish,
	)
	return streaming(u.ctx, result, err)
}

// Close ends the request, if it is not finished.
func (u *Upload) Close() error {
	u.host.Drop()
	return nil
}
