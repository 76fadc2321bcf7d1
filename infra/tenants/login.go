package tenants

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// HasLogin tells whether the role's password was made.
func HasLogin(ctx context.Context, admin *pgx.Conn, role string) (bool, error) {
	made, err := has(ctx, admin, `select exists (select from placement.logins where role = $1)`, role)
	if err != nil {
		return false, fmt.Errorf("tenants: look for the login of %s: %w", role, err)
	}
	return made, nil
}

// Login makes the role that serves the platform's database, if it is missing, and returns its password, which is drawn once and is
// then the same for all processes. admin is the administrator's connection to the platform's database. Processes that may call it at once
// take turns by a lock of their own.
func Login(ctx context.Context, admin *pgx.Conn, secrets Secrets, role string) (password string, err error) {
	purpose := "login:" + role
	var sealed []byte
	err = admin.QueryRow(ctx, `select password from placement.logins where role = $1`, role).Scan(&sealed)
	switch {
	case err == nil:
		plain, err := secrets.Open(ctx, purpose, sealed)
		if err != nil {
			return "", err
		}
		password = string(plain)
	case errors.Is(err, pgx.ErrNoRows):
		var b [24]byte
		rand.Read(b[:]) // never fails (Go 1.24)
		password = hex.EncodeToString(b[:])
		if sealed, err = secrets.Seal(ctx, purpose, []byte(password)); err != nil {
			return "", err
		}
		if _, err := admin.Exec(ctx, `insert into placement.logins (role, password) values ($1, $2)`, role, sealed); err != nil {
			return "", fmt.Errorf("tenants: keep the password of %s: %w", role, err)
		}
	default:
		return "", fmt.Errorf("tenants: read the password of %s: %w", role, err)
	}
	// The role is equipped each time: it is the cluster's, and may be gone while the database was restored, or have another password. To
	// set the same password again locks nobody out. Hexadecimal needs no quoting; DDL takes no parameters.
	exists, err := has(ctx, admin, `select exists (select from pg_roles where rolname = $1)`, role)
	if err != nil {
		return "", fmt.Errorf("tenants: look for role %s: %w", role, err)
	}
	quoted := pgx.Identifier{role}.Sanitize()
	if !exists {
		if _, err := admin.Exec(ctx, `create role `+quoted); err != nil {
			return "", fmt.Errorf("tenants: create role %s: %w", role, err)
		}
	}
	if _, err := admin.Exec(ctx, `alter role `+quoted+` login password '`+password+`'; grant factum_app to `+quoted); err != nil {
		return "", fmt.Errorf("tenants: equip role %s: %w", role, err)
	}
	return password, nil
}
