// Package esdbtest is an EventStoreDB server in the test's own process, over plain memory, for tests of package esdbstore through the
// real client library. It implements the gRPC services Streams (append, read of streams and of $all in both directions with filters
// and link resolution, subscriptions with checkpoints), Gossip and ServerFeatures, with what is odd about the real server: positions
// are byte offsets with gaps; an append that repeats ids at its expected revision is a success that writes nothing, looking at ids
// only; ids are unique within a stream only, and with "any" or "stream exists" merely among recent ones; the projection $by_category
// makes links later, and not at all when it is off; a reset renumbers them.
//
// What it cannot show: durability and crashes of the server; clusters, elections and stale reads from followers; access control lists
// (one user may do everything); deletes, tombstones, $maxAge and scavenging; persistent subscriptions, other projections, batch
// appends; the speed of the real server, its memory and its limits other than MaxAppendSize; and whatever the authors misread in the
// real server's source. Run the suite with ESDB_CONNECTION_STRING against a real one for that.
package esdbtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// largestAppend is the largest MaxAppendSize, and the largest message, that the real server accepts.
const largestAppend = 16<<20 - 10_000

// Options says how a server differs from a healthy one without TLS.
type Options struct {
	// NoByCategory starts with the projection $by_category off; see [Server.SetByCategory].
	NoByCategory bool
	// NoOriginalPositions makes resolved links carry no position of the original, as some servers do.
	NoOriginalPositions bool
	// DenyAll refuses to read $all or to subscribe to it, as to a user who is not in $admins.
	DenyAll bool
	// LinkLag delays each link; see [Server.SetLinkLag].
	LinkLag time.Duration
	// MaxAppendSize is the server's setting, in bytes; 0 is the largest that the real server accepts, 16767216. Its default is 1 MiB.
	MaxAppendSize int
	// TLS makes the server demand TLS. Its certificate is signed by an authority of its own, which ConnectionString names.
	TLS bool
	// UserCertificate makes the server demand a certificate of the client, too; ConnectionString names one. It needs TLS.
	UserCertificate bool
	// User and Password are demanded of each call to Streams. The library sends them over TLS only.
	User, Password string
}

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	listener *listener
	grpc     *grpc.Server
	files    map[string]string // settings of the connection string
	stop     context.CancelFunc
	served   sync.WaitGroup
	log      log

	mu          sync.Mutex
	unavailable bool
	allowed     int // appends; negative: all
	notLeader   int
	breakAfter  int
	hold        chan struct{}
	dropped     chan struct{} // closed when subscriptions are dropped, then replaced
	appends     int
	reads       int
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.MaxAppendSize == 0 {
		o.MaxAppendSize = largestAppend
	}
	tcp, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("esdbtest: %v", err)
	}
	s := &Server{options: o, listener: &listener{Listener: tcp, open: map[net.Conn]struct{}{}}, files: map[string]string{}, dropped: make(chan struct{}), allowed: -1}
	settings := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(largestAppend), grpc.StreamInterceptor(s.admit), grpc.InitialWindowSize(1 << 20),
	}
	if o.TLS {
		config, err := s.certificates(t.TempDir())
		if err != nil {
			t.Fatalf("esdbtest: %v", err)
		}
		settings = append(settings, grpc.Creds(credentials.NewTLS(config)))
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.log.init(!o.NoByCategory, o.LinkLag)
	s.grpc = grpc.NewServer(settings...)
	streams.RegisterStreamsServer(s.grpc, &streamsService{server: s})
	gossip.RegisterGossipServer(s.grpc, &gossipService{server: s})
	serverfeatures.RegisterServerFeaturesServer(s.grpc, &featuresService{server: s})
	s.served.Go(func() { s.log.byCategory(ctx) })
	s.served.Go(func() {
		if err := s.grpc.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) && ctx.Err() == nil {
			t.Errorf("esdbtest: %v", err)
		}
	})
	t.Cleanup(s.Close)
	return s
}

// ConnectionString is what a client needs to connect.
func (s *Server) ConnectionString() string {
	u := url.URL{Scheme: "esdb", Host: s.listener.Addr().String()}
	if s.options.User != "" {
		u.User = url.UserPassword(s.options.User, s.options.Password)
	}
	q := url.Values{"tls": {strconv.FormatBool(s.options.TLS)}}
	for setting, file := range s.files {
		q.Set(setting, file)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Cut breaks every connection. New ones may be made at once.
func (s *Server) Cut() { s.listener.cut() }

// DropSubscriptions ends every subscription; connections stay.
func (s *Server) DropSubscriptions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.dropped)
	s.dropped = make(chan struct{})
}

// SetUnavailable makes every call answer that the server is not ready.
func (s *Server) SetUnavailable(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unavailable = on
}

// AllowAppends serves n more appends and answers every later one that the server is not ready, as when its disk is full or its caller is
// cut off. A negative n serves all again.
func (s *Server) AllowAppends(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = n
}

// NotLeader makes the next n calls to Streams answer that the leader is elsewhere: at this server's own address.
func (s *Server) NotLeader(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notLeader = n
}

// BreakAfterAppends lets the next n appends be written, and then breaks all connections instead of answering.
func (s *Server) BreakAfterAppends(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakAfter = n
}

// HoldAppends makes appends wait before they are written until release is called. Appends whose caller goes away are not written.
func (s *Server) HoldAppends() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hold := make(chan struct{})
	s.hold = hold
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hold = nil
		close(hold)
	})
}

// SetByCategory starts or stops the projection $by_category. Started again, it goes on where it stopped.
func (s *Server) SetByCategory(on bool) { s.log.setByCategory(on) }

// SetLinkLag delays each later link by d.
func (s *Server) SetLinkLag(d time.Duration) { s.log.setLinkLag(d) }

// ResetByCategory does what a reset of the projection does: all links go, and are made again with higher numbers.
func (s *Server) ResetByCategory() { s.log.resetByCategory() }

// Gap advances the position in $all by n bytes without an event.
func (s *Server) Gap(n uint64) { s.log.gap(n) }

// Write appends an event that is not factum's.
func (s *Server) Write(stream, kind string, data []byte) {
	s.log.append(stream, expected{any: true}, []*event{{id: uuid.New(), kind: kind, contentType: "application/octet-stream", data: data}})
}

// Truncate does what $maxAge does in the end: the stream's events cannot be read any more, and links to them lead nowhere.
func (s *Server) Truncate(stream string) { s.log.truncate(stream) }

// Events is how many events the stream has; links count in $ce- streams.
func (s *Server) Events(stream string) int { return s.log.count(stream) }

// Appends is how many calls of Append the server was asked for, the failed ones included.
func (s *Server) Appends() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appends
}

// Reads is how many calls of Read the server was asked for, subscriptions and failed ones included.
func (s *Server) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Close ends the server. It may be called more than once.
func (s *Server) Close() {
	s.stop()
	s.grpc.Stop()
	s.served.Wait()
}

// admit is asked before each call to Streams.
func (s *Server) admit(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if s.options.User != "" {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.options.User+":"+s.options.Password))
		md, _ := metadata.FromIncomingContext(stream.Context())
		if got := md.Get("authorization"); len(got) != 1 || got[0] != want {
			return status.Error(codes.Unauthenticated, "Unauthenticated")
		}
	}
	s.mu.Lock()
	unavailable, notLeader := s.unavailable, s.notLeader > 0
	if notLeader {
		s.notLeader--
	}
	s.mu.Unlock()
	switch {
	case unavailable:
		return status.Error(codes.Unavailable, "Server Is Not Ready")
	case notLeader:
		host, port, err := net.SplitHostPort(s.listener.Addr().String())
		if err != nil {
			return err
		}
		stream.SetTrailer(metadata.Pairs("exception", "not-leader", "leader-endpoint-host", host, "leader-endpoint-port", port))
		return status.Error(codes.NotFound, "Leader info available")
	}
	return handle(service, stream)
}

// drops returns what is closed when subscriptions are dropped.
func (s *Server) drops() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// certificates makes an authority, a certificate for 127.0.0.1 and one for a user.
func (s *Server) certificates(folder string) (*tls.Config, error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "esdbtest"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	issue := func(serial int64, name string, usage x509.ExtKeyUsage) (certificate, key []byte, err error) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
			ExtKeyUsage: []x509.ExtKeyUsage{usage}, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}, authority, &own.PublicKey, authorityKey)
		if err != nil {
			return nil, nil, err
		}
		private, err := x509.MarshalPKCS8PrivateKey(own)
		if err != nil {
			return nil, nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return nil, err
	}
	rootPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})
	serverPEM, serverKey, err := issue(2, "127.0.0.1", x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(serverPEM, serverKey)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"tlsCaFile": rootPEM}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if s.options.UserCertificate {
		if files["userCertFile"], files["userKeyFile"], err = issue(3, "factum", x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(rootPEM)
	}
	for setting, content := range files {
		file := filepath.Join(folder, setting+".pem")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return nil, err
		}
		s.files[setting] = file
	}
	return config, nil
}

// listener remembers its connections, to break them.
type listener struct {
	net.Listener
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	return &conn{c, l}, nil
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.Close() //nolint:errcheck // breaking it is the purpose
		delete(l.open, c)
	}
}

type conn struct {
	net.Conn
	listener *listener
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

type gossipService struct {
	gossip.UnimplementedGossipServer
	server *Server
}

// Read answers a cluster of one leader.
func (g *gossipService) Read(context.Context, *shared.Empty) (*gossip.ClusterInfo, error) {
	host, port, err := net.SplitHostPort(g.server.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return &gossip.ClusterInfo{Members: []*gossip.MemberInfo{{
		State: gossip.MemberInfo_Leader, IsAlive: true, TimeStamp: time.Now().UnixNano() / 100, HttpEndPoint: &gossip.EndPoint{Address: host, Port: uint32(number)},
	}}}, nil
}

type featuresService struct {
	serverfeatures.UnimplementedServerFeaturesServer
	server *Server
}

// GetSupportedMethods answers as a server of version 24.10.
func (f *featuresService) GetSupportedMethods(context.Context, *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	if f.server.unavailable {
		return nil, status.Error(codes.Unavailable, "Server Is Not Ready")
	}
	out := &serverfeatures.SupportedMethods{EventStoreServerVersion: "24.10.0"}
	for _, method := range []string{"read", "append"} {
		out.Methods = append(out.Methods, &serverfeatures.SupportedMethod{ServiceName: "event_store.client.streams.streams", MethodName: method})
	}
	return out, nil
}

// String names the server in a test's output.
func (s *Server) String() string { return fmt.Sprintf("esdbtest at %s", s.listener.Addr()) }
