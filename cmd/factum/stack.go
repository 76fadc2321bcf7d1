package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// stopTimeout bounds how long one part may take to stop.
const stopTimeout = 20 * time.Second

// stack holds what was started, in order, and stops it in reverse.
type stack struct {
	parts    []part
	failed   chan error
	stopping chan struct{}
}

type part struct {
	name string
	stop func(context.Context) error
}

func newStack() *stack { return &stack{failed: make(chan error, 1), stopping: make(chan struct{})} }

// started adds a part that stop ends.
func (s *stack) started(name string, stop func(context.Context) error) {
	s.parts = append(s.parts, part{name, stop})
}

// background runs f until the part is stopped. If f returns before that, the whole process is to end; see failed.
func (s *stack) background(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := f(ctx)
		if ctx.Err() == nil {
			s.fail(fmt.Errorf("%s ended by itself: %w", name, orUnknown(err)))
		}
		done <- err
	}()
	s.started(name, func(stopCtx context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-stopCtx.Done():
			return stopCtx.Err()
		}
	})
}

// watch ends the whole process when a server ends by itself: without it nothing can be acknowledged.
func (s *stack) watch(name string, exited <-chan struct{}) {
	go func() {
		select {
		case <-exited:
			s.fail(fmt.Errorf("%s ended by itself; start again, nothing that was acknowledged is lost", name))
		case <-s.stopping:
		}
	}()
}

// fail reports the first failure of a background part.
func (s *stack) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// stop stops all parts in reverse order and joins their errors. It is called once.
func (s *stack) stop() error {
	close(s.stopping)
	var errs []error
	for i := len(s.parts) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		if err := s.parts[i].stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.parts[i].name, err))
		}
		cancel()
	}
	s.parts = nil
	return errors.Join(errs...)
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("no reason given")
	}
	return err
}
