// Package domain lists every event type of the system. The decisions live in the packages below it, one per aggregate.
package domain

import (
	"github.com/factum-platform/factum/domain/administrator"
	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/invitation"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/domain/user"
)

// Catalog returns every event type that this binary can write or read, with wire name, upcasters and personal fields.
func Catalog() []es.EventType {
	return []es.EventType{
		es.Event[user.Registered]("user.registered").About("user_id", "email", "first_name", "last_name").WithSafe("user_id"),
		es.Event[user.EmailVerified]("user.email_verified").WithSafe("user_id"),
		es.Event[user.Renamed]("user.renamed").About("user_id", "first_name", "last_name").WithSafe("user_id"),
		es.Event[user.Deactivated]("user.deactivated").WithSafe("user_id", "deactivated_by"),
		es.Event[user.Activated]("user.activated").WithSafe("user_id", "activated_by"),
		es.Event[tenant.Created]("tenant.created").WithSafe("tenant_id", "name", "database_name", "created_by"),
		es.Event[tenant.Provisioned]("tenant.provisioned").WithSafe("tenant_id"),
		es.Event[tenant.Renamed]("tenant.renamed").WithSafe("tenant_id", "name", "renamed_by"),
		es.Event[tenant.PreconditionsSet]("tenant.preconditions_set").WithSafe("tenant_id", "set_by"),
		es.Event[tenant.Deleted]("tenant.deleted").WithSafe("tenant_id", "deleted_by"),
		es.Event[tenant.Restored]("tenant.restored").WithSafe("tenant_id", "restored_by"),
		es.Event[membership.Granted]("membership.granted").WithSafe("tenant_id", "user_id", "role", "granted_by"),
		es.Event[membership.RoleChanged]("membership.role_changed").WithSafe("tenant_id", "user_id", "role", "changed_by"),
		es.Event[membership.Removed]("membership.removed").WithSafe("tenant_id", "user_id", "removed_by"),
		es.Event[invitation.Issued]("invitation.issued").About("invitation_id", "email").WithSafe("invitation_id", "tenant_id", "role", "invited_by"),
		es.Event[invitation.Resent]("invitation.resent").WithSafe("invitation_id", "resent_by"),
		es.Event[invitation.Accepted]("invitation.accepted").WithSafe("invitation_id", "user_id"),
		es.Event[invitation.Declined]("invitation.declined").WithSafe("invitation_id", "user_id"),
		es.Event[invitation.Revoked]("invitation.revoked").WithSafe("invitation_id", "revoked_by"),
		es.Event[administrator.Granted]("administrator.granted").WithSafe("user_id", "granted_by"),
		es.Event[administrator.Revoked]("administrator.revoked").WithSafe("user_id", "revoked_by"),
		es.Event[timestamping.Enabled]("timestamping.enabled").WithSafe("provider", "by"),
		es.Event[timestamping.Disabled]("timestamping.disabled").WithSafe("by"),
		es.Event[file.Stored]("file.stored").WithSafe("file_id", "sha256", "md5", "object_key", "stored_by"),
		es.Event[file.Linked]("file.linked").WithSafe("file_id", "document_id"),
		es.Event[file.Unlinked]("file.unlinked").WithSafe("file_id", "document_id"),
		es.Event[file.TimestampRequested]("file.timestamp_requested").WithSafe("file_id", "sha256", "by"),
		es.Event[file.Timestamped]("file.timestamped").WithSafe("file_id", "serial", "policy", "algorithm", "authority"),
		es.Event[file.TimestampFailed]("file.timestamp_failed").WithSafe("file_id", "reason"),
		es.Event[file.TimestampAbandoned]("file.timestamp_abandoned").WithSafe("file_id", "reason"),
		es.Event[file.Deleted]("file.deleted").WithSafe("file_id", "object_key", "deleted_by"),
		es.Event[document.Uploaded]("document.uploaded").About("uploaded_by", "filename").WithSafe("document_id", "file_id", "mime_type", "uploaded_by"),
		es.Event[document.Renamed]("document.renamed").About("renamed_by", "filename").WithSafe("document_id", "renamed_by"),
		es.Event[document.MimeTypeChanged]("document.mime_type_changed").WithSafe("document_id", "mime_type", "changed_by"),
		es.Event[document.MetadataSet]("document.metadata_set").About("set_by", "metadata").WithSafe("document_id", "set_by"),
		es.Event[document.Deleted]("document.deleted").WithSafe("document_id", "file_id", "deleted_by"),
		es.Event[projection.EventSkipped]("projection.event_skipped").WithSafe("projection", "stream_kind", "stream_id", "event_id", "reason", "by"),
	}
}
