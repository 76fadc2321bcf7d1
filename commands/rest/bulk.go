package rest

import (
	"errors"
	"net/http"
	"strings"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

// result is what became of one of the things that a bulk command was given.
type result struct {
	ID      string         `json:"id" pattern:"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" doc:"As in the request, in lower case; of what does not exist, any 128 bits in the form of a UUID."`
	Success bool           `json:"success"`
	Status  int            `json:"status" doc:"What the same command for this one alone would be answered with." example:"404"`
	Fault   *httpapi.Fault `json:"error,omitempty" doc:"Why it was refused."`
}

// results answers a bulk command. It is a success also when some or all things were refused.
type results struct {
	Results   []result `json:"results" nullable:"false" doc:"One for each distinct id, in the order of the request."`
	Succeeded int      `json:"succeeded"`
	Failed    int      `json:"failed"`
}

// distinct writes ids in lower case and drops repetitions.
func distinct(ids []string) []string {
	out, seen := make([]string, 0, len(ids)), make(map[string]bool, len(ids))
	for _, id := range ids {
		if id = strings.ToLower(id); !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

func resultsOf[R any](items []commands.Item[R]) results {
	out := results{Results: make([]result, len(items))}
	for i, item := range items {
		out.Results[i] = result{ID: item.ID, Success: true, Status: http.StatusOK}
		if item.Err == nil {
			out.Succeeded++
			continue
		}
		out.Failed++
		var p *httpapi.Problem
		if !errors.As(answer(item.Err), &p) {
			p = httpapi.Internal(item.Err) // commands promise that there is no other
		}
		fault := p.OfItem()
		out.Results[i] = result{ID: item.ID, Status: p.Status, Fault: &fault}
	}
	return out
}
