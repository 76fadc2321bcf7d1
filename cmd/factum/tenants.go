package main

// TenantsCmd groups what operators do with tenants and their databases.
type TenantsCmd struct {
	List    TenantsListCmd    `cmd:"" help:"Show the tenants: where each lives, its schema and its size."`
	Show    TenantsShowCmd    `cmd:"" help:"Show all about one tenant: its database, its log, its read models."`
	Migrate TenantsMigrateCmd `cmd:"" help:"Bring the schemas of tenants' databases up to date while the platform serves. It may be killed and repeated."`
}
