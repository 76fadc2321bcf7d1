package esdbstore_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
	"github.com/factum-platform/factum/eventstore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func TestContract(t *testing.T) {
	var server *esdbtest.Server
	storetest.Run(t, storetest.Engine{
		Open: func(t *testing.T) eventstore.Store {
			server = esdbtest.Start(t, esdbtest.Options{})
			s, err := esdbstore.Open(t.Context(), esdbstore.Config{ConnectionString: server.ConnectionString(), Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Cut: func(*testing.T) { server.Cut() },
	})
}
