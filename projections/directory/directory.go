// Package directory is the read model of the control plane: users, tenants, memberships, invitations and the
// platform's administrators, in the platform's database.
package directory

import (
	_ "embed"
	"fmt"
	"time"

	"github.com/factum-platform/factum/domain/administrator"
	"github.com/factum-platform/factum/domain/invitation"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

//go:embed schema.sql
var schema string

//go:embed indexes.sql
var indexes string

// Projection consumes the platform's log and, for the time-stamping policy, every tenant's. The logs have no order among each
// other: a policy may arrive before its tenant, and the rows come out the same.
func Projection() runner.Projection {
	return runner.Projection{
		Name: "directory", Version: 2, Home: runner.PlatformHome, DDL: schema, Indexes: indexes,
		Types: []string{
			"user.registered", "user.email_verified", "user.renamed", "user.deactivated", "user.activated",
			"tenant.created", "tenant.provisioned", "tenant.renamed", "tenant.preconditions_set", "tenant.deleted", "tenant.restored",
			"membership.granted", "membership.role_changed", "membership.removed", "administrator.granted", "administrator.revoked",
			"invitation.issued", "invitation.resent", "invitation.accepted", "invitation.declined", "invitation.revoked",
			"timestamping.enabled", "timestamping.disabled",
		},
		Apply: apply,
	}
}

func apply(w *runner.Writes, rec eventstore.Recorded, fact any) error {
	version := int64(rec.Version)
	switch f := fact.(type) {
	case user.Registered:
		w.Exec(`insert into `+w.Table("users")+` (id, email, email_verified, first_name, last_name, is_active, created_at, updated_at, version) values ($1, $2, false, $3, $4, true, $5, $5, $6)
			on conflict (id) do nothing`, f.UserID, f.Email.Reveal(), f.FirstName.Reveal(), f.LastName.Reveal(), f.At, version)
	case user.EmailVerified:
		w.Exec(`update `+w.Table("users")+` set email_verified = true, updated_at = $2, version = $3 where id = $1`, f.UserID, f.At, version)
	case user.Renamed:
		w.Exec(`update `+w.Table("users")+` set first_name = $2, last_name = $3, updated_at = $4, version = $5 where id = $1`,
			f.UserID, f.FirstName.Reveal(), f.LastName.Reveal(), f.At, version)
	case user.Deactivated:
		inUse(w, f.UserID, false, f.At, version)
	case user.Activated:
		inUse(w, f.UserID, true, f.At, version)
	case tenant.Created:
		// The log's id is the tenant's without dashes; a policy that came first has made the row under it.
		w.Exec(`insert into `+w.Table("tenants")+` as t (id, name, database_name, provisioned, is_active, tsa_enabled, created_by, created_at, updated_at, version)
			values ($1, $2, $3, false, true, false, $4, $5, $5, $6)
			on conflict (id) do update set version = excluded.version, name = excluded.name, database_name = excluded.database_name, created_by = excluded.created_by,
				created_at = excluded.created_at, updated_at = greatest(t.updated_at, excluded.updated_at)`,
			f.TenantID, f.Name, f.DatabaseName, f.CreatedBy, f.At, version)
	case tenant.Provisioned:
		w.Exec(`update `+w.Table("tenants")+` set provisioned = true, version = $2 where id = $1`, f.TenantID, version)
	case tenant.Renamed:
		w.Exec(`update `+w.Table("tenants")+` set name = $2, updated_at = greatest(updated_at, $3), version = $4 where id = $1`, f.TenantID, f.Name, f.At, version)
	case tenant.PreconditionsSet:
		w.Exec(`update `+w.Table("tenants")+` set require_if_match = $2, updated_at = greatest(updated_at, $3), version = $4 where id = $1`, f.TenantID, f.Required, f.At, version)
	case tenant.Deleted:
		active(w, f.TenantID, false, f.At, version)
	case tenant.Restored:
		active(w, f.TenantID, true, f.At, version)
	case membership.Granted:
		w.Exec(`insert into `+w.Table("memberships")+` (tenant_id, user_id, role, joined_at) values ($1, $2, $3, $4)
			on conflict (tenant_id, user_id) do update set role = excluded.role`, f.TenantID, f.UserID, f.Role, f.At)
		membersAt(w, f.TenantID, version)
	case membership.RoleChanged:
		w.Exec(`update `+w.Table("memberships")+` set role = $3 where tenant_id = $1 and user_id = $2`, f.TenantID, f.UserID, f.Role)
		membersAt(w, f.TenantID, version)
	case membership.Removed:
		w.Exec(`delete from `+w.Table("memberships")+` where tenant_id = $1 and user_id = $2`, f.TenantID, f.UserID)
		membersAt(w, f.TenantID, version)
	case invitation.Issued:
		w.Exec(`insert into `+w.Table("invitations")+` (id, tenant_id, email, role, state, invited_by, invited_at, expires_at, answered_at) values ($1, $2, $3, $4, 'open', $5, $6, $7, null)
			on conflict (id) do update set email = excluded.email, role = excluded.role, state = excluded.state, invited_by = excluded.invited_by,
				invited_at = excluded.invited_at, expires_at = excluded.expires_at, answered_at = null`,
			f.InvitationID, f.TenantID, f.Email.Reveal(), f.Role, f.InvitedBy, f.At, f.ExpiresAt)
	case invitation.Resent:
		w.Exec(`update `+w.Table("invitations")+` set invited_by = $2, expires_at = $3 where id = $1`, f.InvitationID, f.ResentBy, f.ExpiresAt)
	case invitation.Accepted:
		answered(w, f.InvitationID, "accepted", f.At)
	case invitation.Declined:
		answered(w, f.InvitationID, "declined", f.At)
	case invitation.Revoked:
		answered(w, f.InvitationID, "revoked", f.At)
	case administrator.Granted:
		w.Exec(`insert into `+w.Table("administrators")+` (user_id, since) values ($1, $2) on conflict (user_id) do nothing`, f.UserID, f.At)
	case administrator.Revoked:
		w.Exec(`delete from `+w.Table("administrators")+` where user_id = $1`, f.UserID)
	case timestamping.Enabled:
		policy(w, rec, true, &f.Provider)
	case timestamping.Disabled:
		policy(w, rec, false, nil)
	default:
		return fmt.Errorf("directory: no rows are known for %s", rec.Type)
	}
	return nil
}

// active hides a tenant from its members, or shows it again.
func active(w *runner.Writes, tenantID string, is bool, at time.Time, version int64) {
	w.Exec(`update `+w.Table("tenants")+` set is_active = $2, updated_at = greatest(updated_at, $3), version = $4 where id = $1`, tenantID, is, at, version)
}

// membersAt notes the version of the stream of the tenant's members.
func membersAt(w *runner.Writes, tenantID string, version int64) {
	w.Exec(`insert into `+w.Table("member_lists")+` (tenant_id, version) values ($1, $2)
		on conflict (tenant_id) do update set version = excluded.version`, tenantID, version)
}

// inUse shows an account to fellow members, or hides it.
func inUse(w *runner.Writes, userID string, is bool, at time.Time, version int64) {
	w.Exec(`update `+w.Table("users")+` set is_active = $2, updated_at = $3, version = $4 where id = $1`, userID, is, at, version)
}

func answered(w *runner.Writes, invitationID, how string, at time.Time) {
	w.Exec(`update `+w.Table("invitations")+` set state = $2, answered_at = $3 where id = $1`, invitationID, how, at)
}

// nobody stands for the creator of a tenant whose creation has not been met yet.
const nobody = "00000000-0000-0000-0000-000000000000"

// policy writes the tenant's row, which may not be there yet; it stays hidden until the tenant is provisioned.
func policy(w *runner.Writes, rec eventstore.Recorded, enabled bool, provider *string) {
	w.Exec(`insert into `+w.Table("tenants")+` as t (id, name, database_name, provisioned, is_active, tsa_enabled, tsa_provider, created_by, created_at, updated_at)
		values ($1, '', '', false, true, $2, $3, $4, $5, $5)
		on conflict (id) do update set tsa_enabled = excluded.tsa_enabled, tsa_provider = coalesce(excluded.tsa_provider, t.tsa_provider),
			updated_at = greatest(t.updated_at, excluded.updated_at)`,
		string(rec.Tenant), enabled, provider, nobody, rec.Meta.At)
}
