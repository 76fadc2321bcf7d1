package commands_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
)

func TestMayHaveHappened(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{es.Refuse("x.y", "No."), false},
		{&eventstore.ConflictError{}, false},
		{&eventstore.ClaimError{}, false},
		{&eventstore.ReusedKeyError{}, false},
		{&eventstore.InvalidError{}, false},
		{&eventstore.UnknownTypeError{}, false},
		{&eventstore.FutureSchemaError{}, false},
		{&eventstore.UnavailableError{Err: errors.New("refused")}, false},
		{&eventstore.UnavailableError{Maybe: true, Err: context.Canceled}, true},
		{errors.New("connection lost"), true},
		{context.DeadlineExceeded, true},
	} {
		for _, err := range []error{test.err, wrapped(test.err)} {
			if got := commands.MayHaveHappened(err); got != test.want {
				t.Errorf("%T %v: %v; want %v", test.err, err, got, test.want)
			}
		}
	}
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("around it: %w", err)
}
