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

// The model against itself: what the model test compares with is itself one of the engines.
func TestModel(t *testing.T) {
	model, engine := memstore.New(), memstore.New()
	defer model.Close()
	defer engine.Close()
	storetest.RunModel(t, model, engine)
}

func TestConcurrent(t *testing.T) {
	engine := memstore.New()
	defer engine.Close()
	storetest.RunConcurrent(t, func() eventstore.Store { return memstore.New() }, engine)
}
