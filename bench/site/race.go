//go:build race

package site

// raceDetector tells whether this program has the race detector; what it builds has it then, too.
const raceDetector = true
