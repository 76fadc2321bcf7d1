package telemetry

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheLoggerWritesTheChosenFormatFromTheChosenLevelUp(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"shown"`, "text": "msg=shown"} {
		var out bytes.Buffer
		log, err := Logger(&out, format, "warn")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hidden")
		log.Warn("shown")
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "hidden") {
			t.Errorf("%s: %q; want %q and nothing below warn", format, got, want)
		}
	}
}

func TestAWrongSettingOfTheLoggerSaysWhatIsAllowed(t *testing.T) {
	for _, c := range []struct{ format, level, want string }{
		{"xml", "info", "use json or text"}, {"json", "loud", "use debug, info, warn or error"},
	} {
		if _, err := Logger(&bytes.Buffer{}, c.format, c.level); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Logger(%q, %q): %v; want %q", c.format, c.level, err, c.want)
		}
	}
}

func TestMetricsNameTheVersion(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(Metrics("1.2.3")).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `factum_build_info{version="1.2.3"} 1`) {
		t.Errorf("status %d, body without the build info:\n%.300s", w.Code, w.Body.String())
	}
}
