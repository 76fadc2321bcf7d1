package runner

import (
	"testing"
	"time"
)

func TestSlicesStayNearTheirTime(t *testing.T) {
	for _, c := range []struct {
		name          string
		size, applied int
		took          time.Duration
		want          int
	}{
		{"slow halves", 500, 500, 150 * time.Millisecond, 250},
		{"never below the smallest", 20, 20, time.Second, smallSlice},
		{"fast and full grows", 100, 100, 10 * time.Millisecond, 200},
		{"never above the largest", 400, 400, time.Millisecond, sliceEvents},
		{"fast because short stays", 100, 7, time.Millisecond, 100},
		{"in between stays", 100, 100, 60 * time.Millisecond, 100},
	} {
		if got := nextSize(c.size, c.applied, c.took); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
