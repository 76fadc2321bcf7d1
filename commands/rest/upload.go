package rest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/infra/httpapi"
)

const (
	// maxUploadBytes is the largest content and 1 MiB for the form around it.
	maxUploadBytes = commands.MaxFileBytes + 1<<20
	maxFieldBytes  = 32 << 10
	maxParts       = 16
)

// upload reads the form itself, as it arrives; it has no Body, or huma would gather the whole request in memory.
type upload struct {
	httpapi.InTenant
	httpapi.Repeatable
	request huma.Context
}

// Resolve implements huma.Resolver. The context stays valid until the handler has returned.
func (u *upload) Resolve(ctx huma.Context) []error {
	u.request = ctx
	return nil
}

// form is a multipart form (RFC 7578) that is read in the order in which it arrives.
type form struct {
	parts  *multipart.Reader
	seen   int
	fields map[string]string
	wrong  map[string][]string // by field, what could not be read
	part   *multipart.Part     // the file
	sum    hash.Hash           // of what the parts say and hold, whatever boundary separates them
	read   int64               // bytes of the part that is being read
}

func (u *upload) form() (*form, error) { return formOf(u.request) }

// digest reads a form to its end. Two forms with the same parts in the same order have the same digest.
func digest(request huma.Context) ([]byte, error) {
	f, err := formOf(request)
	if err != nil {
		return nil, err
	}
	for {
		part, err := f.next()
		if err != nil {
			return nil, err
		}
		if part == nil {
			return f.sum.Sum(nil), nil
		}
		if _, err := io.Copy(io.Discard, f.content(part)); err != nil {
			return nil, brokenForm(err)
		}
	}
}

func formOf(request huma.Context) (*form, error) {
	kind, params, err := mime.ParseMediaType(request.Header("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, httpapi.NewProblem(http.StatusUnsupportedMediaType, "", "Send the file as multipart/form-data.")
	}
	if params["boundary"] == "" {
		return nil, httpapi.NewProblem(http.StatusBadRequest, "", "The header Content-Type names no boundary.")
	}
	body, err := httpapi.Inflow(request, maxUploadBytes)
	if err != nil {
		return nil, err
	}
	return &form{parts: multipart.NewReader(body, params["boundary"]), fields: map[string]string{}, wrong: map[string][]string{}, sum: sha256.New()}, nil
}

// file reads fields up to the part "file" and returns its content. A form without that part is read to its end, and refused for all that is
// wrong with it.
func (f *form) file() (io.Reader, error) {
	for {
		part, err := f.next()
		if err != nil {
			return nil, err
		}
		if part == nil {
			f.wrong["file"] = []string{"Missing data for required field."}
			wrong := f.description().Check()
			if _, given := f.fields["filename"]; !given {
				delete(wrong, "filename") // it would be the file's own
			}
			return nil, httpapi.Invalid(wrong)
		}
		if part.FormName() == "file" {
			f.part = part
			return broken{f.content(part)}, nil
		}
		if err := f.keep(part); err != nil {
			return nil, err
		}
	}
}

// describe reads what comes behind the file, to the form's end, and says what the file is called, what it is and what is noted about it.
func (f *form) describe() (commands.Description, error) {
	for {
		part, err := f.next()
		if err != nil {
			return commands.Description{}, err
		}
		if part == nil {
			return f.description(), nil
		}
		if part.FormName() == "file" {
			f.wrong["file"] = []string{"Send one file at a time."}
		}
		if err := f.keep(part); err != nil {
			return commands.Description{}, err
		}
	}
}

// description is what the fields say; the file's part, if there is one, says the rest.
func (f *form) description() commands.Description {
	filename, given := f.fields["filename"]
	if !given && f.part != nil {
		filename = bareName(f.part)
	}
	mimeType, given := f.fields["mime_type"]
	if !given {
		if f.part != nil {
			mimeType = f.part.Header.Get("Content-Type")
		}
		if kind, _, err := mime.ParseMediaType(mimeType); err == nil {
			mimeType = kind // a browser adds a charset; the type alone is kept
		}
		if mimeType == "" {
			mimeType = "application/octet-stream"
		}
	}
	return commands.Description{Filename: filename, MimeType: mimeType, Metadata: f.metadata(), Unread: f.wrong}
}

// metadata reads the field of that name, a JSON object of texts.
func (f *form) metadata() map[string]*string {
	raw := f.fields["metadata"]
	if raw == "" {
		return nil
	}
	var out map[string]*string
	if err := httpapi.ReadJSON([]byte(raw), &out); err != nil {
		f.wrong["metadata"] = []string{"Not a JSON object of texts, each key once."}
		return nil
	}
	return out
}

// next returns nil behind the last part.
func (f *form) next() (*multipart.Part, error) {
	part, err := f.parts.NextRawPart()
	fmt.Fprintf(f.sum, "%d;", f.read) // where the part before it ended
	f.read = 0
	switch {
	case err == io.EOF: // bare behind the last part; a form that breaks off answers it wrapped
		return nil, nil //nolint:nilnil // the end of the form
	case err != nil:
		return nil, brokenForm(err)
	}
	if f.seen++; f.seen > maxParts {
		return nil, httpapi.NewProblem(http.StatusBadRequest, "", "The form has too many parts.")
	}
	fmt.Fprintf(f.sum, "%q %q;", part.Header.Get("Content-Disposition"), part.Header.Get("Content-Type"))
	return part, nil
}

// content is what the part holds; it goes into the digest as it is read.
func (f *form) content(part *multipart.Part) io.Reader {
	return io.TeeReader(part, counted{f})
}

type counted struct{ f *form }

// Write implements io.Writer.
func (c counted) Write(p []byte) (int, error) {
	c.f.read += int64(len(p))
	return c.f.sum.Write(p)
}

// keep keeps a field that is known and passes over others, as the original does. The last of two wins.
func (f *form) keep(part *multipart.Part) error {
	content := f.content(part)
	raw, err := io.ReadAll(io.LimitReader(content, maxFieldBytes+1))
	if err == nil {
		_, err = io.Copy(io.Discard, content)
	}
	if err != nil {
		return brokenForm(err)
	}
	name := part.FormName()
	if name != "filename" && name != "mime_type" && name != "metadata" {
		return nil
	}
	if len(raw) > maxFieldBytes {
		f.wrong[name] = []string{"Too long."}
		return nil
	}
	f.fields[name] = string(raw)
	return nil
}

// bareName is the part's name without folders, however the client's system writes them, and without control characters.
func bareName(part *multipart.Part) string {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return ""
	}
	name := params["filename"]
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	if !utf8.ValidString(name) {
		return name // for the command to refuse: what follows would replace the bytes in silence
	}
	return strings.Map(func(r rune) rune {
		if document.ControlCharacter(r) {
			return -1
		}
		return r
	}, name)
}

// broken gives errors of a malformed form the status of the client's mistake.
type broken struct{ io.Reader }

// Read implements io.Reader.
func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = brokenForm(err)
	}
	return n, err
}

func brokenForm(err error) error {
	var known *httpapi.Problem
	if errors.As(err, &known) {
		return known
	}
	return httpapi.NewProblem(http.StatusBadRequest, "", "The multipart form is malformed or incomplete.")
}
