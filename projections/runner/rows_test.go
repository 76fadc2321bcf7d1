package runner_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/projections/runner"
)

// things is a projection whose events say in their numbers what is done to which row.
func things() runner.Projection {
	table := &runner.Table{Name: "things", Columns: []string{"id", "n", "name", "note"}}
	return runner.Projection{
		Name: "things", Version: 1, Home: runner.TenantHome,
		DDL: `create table things (id int primary key, n bigint not null, name text, note text)`,
		Apply: func(w *runner.Writes, _ eventstore.Recorded, fact any) error {
			n := fact.(added).N
			id, what := n%10, n/10%10
			switch what {
			case 0:
				// Twice the same row would be refused: what is there goes first.
				w.Delete(table, id)
				w.Insert(table, id, n, fmt.Sprint("inserted ", n), nil)
			case 1, 2:
				w.Update(table, id, runner.Add("n", int64(n)), runner.Set("note", fmt.Sprint(n)))
			case 3:
				w.Update(table, id, runner.Set("n", n))
			case 4:
				w.Update(table, id, runner.Set("name", nil))
			case 5:
				w.Delete(table, id)
			case 6:
				w.Exec(`update `+w.Table("things")+` set name = name || '!' where id = $1`, id)
			default:
				w.Update(table, id, runner.Add("n", 1))
			}
			return nil
		},
	}
}

// TestRowsThatAreAddedUp: what a slice does to rows comes to the same, one statement each or added up.
func TestRowsThatAreAddedUp(t *testing.T) {
	w := newWorld(t)
	dump := `select coalesce(string_agg(t::text, ' ' order by id), '') from %s.things t`
	rapid.Check(t, func(rt *rapid.T) {
		w.store = memstore.New()
		w.exec(`truncate proj.live, proj.checkpoint; drop schema if exists things_g1 cascade; drop schema if exists things_g2 cascade`)
		numbers := rapid.SliceOfN(rapid.IntRange(0, 999), 1, 40).Draw(rt, "numbers")
		one := things()
		apply := one.Apply
		for _, n := range numbers {
			w.add("s", n)
		}
		// Built event by event, which is one statement each: a slice that fails is replayed so.
		fail := true
		one.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
			if fail && int(rec.Position) == len(numbers) {
				fail = false
				return fmt.Errorf("once")
			}
			return apply(wr, rec, fact)
		}
		if _, err := w.operator(one).Rebuild(t.Context(), "things", tenant, runner.RebuildOptions{}); err != nil {
			rt.Fatal(err)
		}
		out, err := w.operator(things()).Rebuild(t.Context(), "things", tenant, runner.RebuildOptions{})
		if err != nil || !out.Compared.Same() {
			rt.Fatalf("%+v %v: one by one %s, added up %s", out, err, w.one(fmt.Sprintf(dump, "things_g1")), w.one(fmt.Sprintf(dump, "things_g2")))
		}
		if a, b := w.one(fmt.Sprintf(dump, "things_g1")), w.one(fmt.Sprintf(dump, "things_g2")); a != b {
			rt.Fatalf("one by one %s, added up %s", a, b)
		}
	})
}

func TestARowThatIsInsertedTwiceIsPoison(t *testing.T) {
	for _, rows := range []int{2, 20} { // by statements, and by COPY
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			w := newWorld(t)
			table := &runner.Table{Name: "things", Columns: []string{"id", "n", "name", "note"}}
			p := things()
			p.Apply = func(w *runner.Writes, _ eventstore.Recorded, fact any) error {
				w.Insert(table, fact.(added).N, 1, "", nil)
				return nil
			}
			for n := range rows {
				w.add("s", n)
			}
			w.add("again", rows/2)
			w.add("s", rows)
			_, err := w.operator(p).Rebuild(t.Context(), "things", tenant, runner.RebuildOptions{})
			if want := "SQLSTATE 23505, table things, constraint things_pkey"; err == nil || poisonOf(t, err).Reason != want || poisonOf(t, err).Event.Stream.ID != "again" {
				t.Fatal(err)
			}
		})
	}
}

func TestAValueThatCannotBeEncodedIsPoison(t *testing.T) {
	for _, rows := range []int{2, 20} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			w := newWorld(t)
			table := &runner.Table{Name: "things", Columns: []string{"id", "who"}}
			p := things()
			p.DDL = `create table things (id int primary key, who uuid)`
			p.Apply = func(w *runner.Writes, _ eventstore.Recorded, fact any) error {
				who := "0f3c1a5e-0000-4000-8000-000000000000"
				if fact.(added).N == 1 {
					who = "ada@example.org"
				}
				w.Insert(table, fact.(added).N, who)
				return nil
			}
			for n := range rows {
				w.add(fmt.Sprint("s", n), n)
			}
			_, err := w.operator(p).Rebuild(t.Context(), "things", tenant, runner.RebuildOptions{})
			if err == nil || poisonOf(t, err).Event.Stream.ID != "s1" || poisonOf(t, err).Reason != "SQLSTATE 22P02" {
				t.Fatal(err)
			}
		})
	}
}
