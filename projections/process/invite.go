package process

import (
	"context"

	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/domain/invitation"
)

const invitationKind = "mail.invitation"

// invitingState is empty: one event, one mail.
type invitingState struct{}

// inviting mails the link of an invitation, at first and whenever somebody asks again.
func inviting() Process[invitingState, invitation.Event] {
	return Process[invitingState, invitation.Event]{
		Name:  "inviting",
		Types: []string{"invitation.issued", "invitation.resent"},
		Correlate: func(e invitation.Event) (instance string, interested bool) {
			switch e := e.(type) {
			case invitation.Issued:
				return e.InvitationID, true
			case invitation.Resent:
				return e.InvitationID, true
			default:
				return "", false
			}
		},
		Initial: func() invitingState { return invitingState{} },
		Evolve:  func(s invitingState, _ invitation.Event) invitingState { return s },
		React: func(_ invitingState, e invitation.Event) []Job {
			switch e := e.(type) {
			case invitation.Issued:
				return []Job{{invitationKind, invitationArgs{e.InvitationID}, e.At}}
			case invitation.Resent:
				return []Job{{invitationKind, invitationArgs{e.InvitationID}, e.At}}
			default:
				return nil
			}
		},
		Done: func(invitingState) bool { return true },
	}
}

// invitationArgs name the invitation; whom it invites is sealed in the log.
type invitationArgs struct {
	Invitation string `json:"invitation"`
}

// invitationOrder is an [order] as its worker reads it.
type invitationOrder struct {
	Key    string         `json:"key"`
	Tenant string         `json:"tenant"`
	Args   invitationArgs `json:"args"`
}

// Kind implements river.JobArgs.
func (invitationOrder) Kind() string { return invitationKind }

type invitationWorker struct {
	river.WorkerDefaults[invitationOrder]
	lane *lane
	d    Deps
}

// Work implements river.Worker.
func (w *invitationWorker) Work(ctx context.Context, job *river.Job[invitationOrder]) error {
	return w.lane.carryOut(ctx, job.Args.Key, job.Args.Tenant, func(ctx context.Context) error {
		return w.d.Commands.MailInvitation(ctx, job.Args.Args.Invitation)
	})
}
