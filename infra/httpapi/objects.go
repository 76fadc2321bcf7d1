package httpapi

import "github.com/factum-platform/factum/infra/auth"

// User is an account as its owner and fellow members see it.
type User struct {
	ID        string `json:"id" format:"uuid"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Email     string `json:"email"`
	IsActive  bool   `json:"is_active"`
	CreatedAt Time   `json:"created_at"`
	UpdatedAt Time   `json:"updated_at"`
}

// Account is an account as its owner sees it.
type Account struct {
	User
	EmailVerified bool `json:"email_verified" doc:"A link that was mailed to the address was followed."`
}

// Tenant is a tenant as its members see it.
type Tenant struct {
	ID                  string   `json:"id" format:"uuid"`
	Name                string   `json:"name"`
	DatabaseName        string   `json:"database_name"`
	IsActive            bool     `json:"is_active"`
	AuthMethod          string   `json:"auth_method" enum:"local,sso,both"`
	SSODomainWhitelist  []string `json:"sso_domain_whitelist" nullable:"false"`
	SSOAutoProvisioning bool     `json:"sso_auto_provisioning"`
	SSODefaultRole      string   `json:"sso_default_role" enum:"admin,user,viewer"`
	TSAEnabled          bool     `json:"tsa_enabled"`
	TSAProvider         *string  `json:"tsa_provider" doc:"Short name of the time-stamping authority; null until it was first enabled."`
	RequireIfMatch      bool     `json:"require_if_match" doc:"Changes without If-Match are refused (428)."`
	CreatedAt           Time     `json:"created_at"`
	UpdatedAt           Time     `json:"updated_at"`
	CreatedBy           *string  `json:"created_by" format:"uuid"`
	Version             uint64   `json:"-"` // of its stream
}

// NewTenant returns a tenant with what every tenant has until single sign-on can be configured: local accounts only.
func NewTenant(id, name, databaseName string) Tenant {
	return Tenant{ID: id, Name: name, DatabaseName: databaseName, IsActive: true, AuthMethod: "local", SSODomainWhitelist: []string{}, SSODefaultRole: "viewer"}
}

// Membership is a tenant with the caller's role in it.
type Membership struct {
	Tenant
	Role     string `json:"role" enum:"admin,user,viewer"`
	JoinedAt Time   `json:"joined_at"`
}

// Invitation is an invitation as the tenant's admins see it.
type Invitation struct {
	ID         string `json:"id" format:"uuid" doc:"The same for an address that the tenant invites anew."`
	TenantID   string `json:"tenant_id" format:"uuid"`
	Email      string `json:"email" doc:"Whether it has an account is not told."`
	Role       string `json:"role" enum:"admin,user,viewer"`
	State      string `json:"state" enum:"open,expired,accepted,declined,revoked"`
	InvitedBy  string `json:"invited_by" format:"uuid" doc:"Who invited, or had it sent again, last."`
	InvitedAt  Time   `json:"invited_at"`
	ExpiresAt  Time   `json:"expires_at"`
	AnsweredAt *Time  `json:"answered_at,omitempty" doc:"When it was accepted, declined or revoked."`
}

// APIKey is a machine's key, without the key itself.
type APIKey struct {
	ID         string `json:"id" format:"uuid" doc:"Stands for the machine wherever a user's id stands for a person."`
	Name       string `json:"name"`
	Role       string `json:"role" enum:"admin,user,viewer"`
	CreatedBy  string `json:"created_by" format:"uuid"`
	CreatedAt  Time   `json:"created_at"`
	ExpiresAt  Time   `json:"expires_at"`
	LastUsedAt *Time  `json:"last_used_at,omitempty" doc:"At most a minute late; absent until it was used."`
	RevokedAt  *Time  `json:"revoked_at,omitempty" doc:"Absent unless it was revoked."`
}

// APIKeyOf shows a key.
func APIKeyOf(k auth.APIKey) APIKey {
	return APIKey{
		ID: k.ID, Name: k.Name, Role: k.Role, CreatedBy: k.CreatedBy, CreatedAt: Time(k.CreatedAt), ExpiresAt: Time(k.ExpiresAt),
		LastUsedAt: TimeOf(k.LastUsedAt), RevokedAt: TimeOf(k.RevokedAt),
	}
}

// Document is a file under a name.
type Document struct {
	ID        string            `json:"id" format:"uuid"`
	Filename  string            `json:"filename"`
	MimeType  string            `json:"mime_type"`
	FileID    string            `json:"file_id" format:"uuid"`
	UserID    string            `json:"user_id" format:"uuid"`
	CreatedAt Time              `json:"created_at"`
	UpdatedAt Time              `json:"updated_at"`
	CreatedBy string            `json:"created_by" format:"uuid"`
	Metadata  map[string]string `json:"metadata" nullable:"false" doc:"What members noted about it; at most 50 keys."`
}

// DocumentFile is what a document shows of its file.
type DocumentFile struct {
	MD5Hash   string `json:"md5_hash"`
	S3Path    string `json:"s3_path"`
	FileSize  int64  `json:"file_size" doc:"Bytes."`
	CreatedAt Time   `json:"created_at"`
}

// DocumentWithFile is a document and its file.
type DocumentWithFile struct {
	Document
	File DocumentFile `json:"file"`
}

// Envelope is the body of a success outside the flat routes.
type Envelope[T any] struct {
	Success bool   `json:"success" doc:"Always true."`
	Message string `json:"message,omitempty"`
	Data    T      `json:"data"`
}

// Answer is a success with an envelope.
type Answer[T any] struct {
	Settled
	Body Envelope[T]
}

// Answered wraps data in its envelope.
func Answered[T any](at Settled, message string, data T) *Answer[T] {
	return &Answer[T]{at, Envelope[T]{true, message, data}}
}

// Done is a success that has nothing to tell but that it is one; its envelope has no data.
type Done struct {
	Settled
	Body struct {
		Success bool   `json:"success" doc:"Always true."`
		Message string `json:"message,omitempty"`
	}
}

// DoneWith returns a success without data.
func DoneWith(at Settled, message string) *Done {
	out := &Done{Settled: at}
	out.Body.Success, out.Body.Message = true, message
	return out
}

// Member is a user in a tenant.
type Member struct {
	User
	Role     string `json:"role" enum:"admin,user,viewer"`
	JoinedAt Time   `json:"joined_at"`
}

// Settled is where the log and the read models stand after a request.
type Settled struct {
	Position string `header:"Factum-Position" doc:"Of a write: the position of its last event. Of a query: how far its read model has applied the log."`
	Pending  string `header:"Factum-Pending" doc:"The read models that had not applied the write within 2 s; absent when all had."`
}

// InTenant is the path of everything in a tenant.
type InTenant struct {
	TenantID string `path:"tenant_id" format:"uuid"`
}

// Fresh lets a query demand its own writes.
type Fresh struct {
	MinPosition uint64 `header:"Factum-Min-Position" maximum:"1000000000000000000" doc:"Answer only when the read model has applied the log up to here; 503 when that takes more than 2 s."`
}

// Repeatable lets a client repeat a write that it got no answer to.
type Repeatable struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" pattern:"^[!-~]+$" doc:"Of one caller, in one tenant: a request with the same key is carried out once and answered alike for 24 hours."`
}

// Page selects a page of a list.
type Page struct {
	Page    int `query:"page" default:"1" minimum:"1" maximum:"1000000"`
	PerPage int `query:"per_page" default:"20" minimum:"1" maximum:"100"`
}

// Offset is how many entries lie before the page.
func (p Page) Offset() int { return (p.Page - 1) * p.PerPage }

// Of describes the page of a list with total entries.
func (p Page) Of(total int) Pagination {
	return Pagination{Page: p.Page, PerPage: p.PerPage, Total: total, Pages: (total + p.PerPage - 1) / p.PerPage}
}

// Pagination says which page of how many an answer holds.
type Pagination struct {
	Page       int    `json:"page"`
	PerPage    int    `json:"per_page"`
	Total      int    `json:"total"`
	Pages      int    `json:"pages" doc:"0 when there is nothing."`
	NextCursor string `json:"next_cursor,omitempty" doc:"Where lists with cursors go on; absent at the end."`
}
