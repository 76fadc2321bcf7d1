package memstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Engine{Open: func(*testing.T) eventstore.Store { return memstore.New() }})
}
