package ratio

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
)

// The plot's measures in pixels.
const (
	plotWidth  = 1120
	plotLeft   = 470 // the bars begin here
	plotRight  = 800 // and end here, at widest times the bar
	plotTop    = 92
	plotRow    = 30
	plotLegend = 44
	// widest is the largest ratio over its bar that fits; a larger one ends in an arrow.
	widest = 2.2
)

// svg draws one row per figure. A row's scale is its own bar, so that one line stands for all bars; what must reach the line and what
// must not pass it differ by their sign beside the number.
func (r *Report) svg() []byte {
	var b bytes.Buffer
	height := plotTop + plotRow*len(r.Results) + plotLegend
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, height)
	text(&b, 20, 30, `font-size="18" font-weight="bold"`, r.Title)
	text(&b, 20, 52, `fill="#555"`, r.Taken.UTC().Format("2006-01-02 15:04 UTC")+"; medians of alternating rounds, whiskers from the least to the greatest")
	line := x(1)
	text(&b, line, plotTop-14, `text-anchor="middle" fill="#333"`, "the bar")
	bottom := plotTop + plotRow*len(r.Results)
	for i, f := range r.Results {
		r.row(&b, f, plotTop+plotRow*i)
	}
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#222" stroke-width="1.5" stroke-dasharray="5 3"/>`+"\n", line, plotTop-8, line, bottom)
	fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#999"/>`+"\n", plotLeft, plotTop-8, plotLeft, bottom)
	text(&b, 20, float64(bottom+28), `fill="#555"`, "Each row is scaled to its own bar. ≥: must reach the line. ≤: must not pass it. Green: met. Red: missed.")
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// x is where a ratio over its bar lies.
func x(overBar float64) float64 {
	return plotLeft + (plotRight-plotLeft)*math.Min(overBar, widest)/widest
}

func (r *Report) row(b *bytes.Buffer, f Result, top int) {
	middle := float64(top) + plotRow/2
	text(b, plotLeft-12, middle+4.5, `text-anchor="end"`, shorten(f.What, 66))
	sign := "≥ "
	if f.AtMost {
		sign = "≤ "
	}
	if f.NotMeasured != "" {
		text(b, plotLeft+8, middle+4.5, `fill="#b3261e"`, "not measured: "+shorten(f.NotMeasured, 60))
		return
	}
	text(b, plotRight+80, middle+4.5, `text-anchor="end" font-weight="bold"`, f.text(f.Median))
	text(b, plotRight+92, middle+4.5, `fill="#555"`, f.text(f.Min)+" to "+f.text(f.Max))
	if f.Bar == 0 {
		text(b, plotLeft+8, middle+4.5, `fill="#555"`, "no bar")
		return
	}
	colour := "#c9483f"
	if f.Met {
		colour = "#4c9a62"
	}
	end := x(f.Median / f.Bar)
	fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="%.1f" height="16" fill="%s"/>`+"\n", plotLeft, middle-8, math.Max(end-plotLeft, 1), colour)
	if f.Median/f.Bar > widest {
		fmt.Fprintf(b, `<path d="M %.1f %.1f l 9 8 l -9 8 z" fill="%s"/>`+"\n", end, middle-8, colour)
	}
	if low, high := x(f.Min/f.Bar), x(f.Max/f.Bar); f.Min/f.Bar < widest {
		fmt.Fprintf(b, `<path d="M %.1f %.1f H %.1f M %.1f %.1f v 8 M %.1f %.1f v 8" stroke="#222" fill="none"/>`+"\n",
			low, middle, high, low, middle-4, high, middle-4)
	}
	text(b, plotWidth-20, middle+4.5, `text-anchor="end"`, sign+f.text(f.Bar))
}

func text(b *bytes.Buffer, x, y float64, attributes, s string) {
	var escaped bytes.Buffer
	if err := xml.EscapeText(&escaped, []byte(s)); err != nil {
		panic("ratio: a buffer refused to be written to: " + err.Error())
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, escaped.String())
}

func shorten(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return string(runes[:limit-1]) + "…"
}
