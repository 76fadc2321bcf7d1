package esdbstore

// What tests need beside the exported surface.
var (
	OpenAt      = open // with a clock
	StreamName  = streamName
	ParseStream = parseStream
)

// Claimed is a claimed value.
type Claimed = claimed

// NewClaimed returns a claimed value.
func NewClaimed(scope, key string) Claimed { return claimed{scope, key} }

var (
	ClaimName     = claimName
	ParseClaim    = parseClaim
	ParseDoorbell = parseDoorbell
)

// DoorbellStreams is the filter of the subscription.
const DoorbellStreams = doorbellStreams
