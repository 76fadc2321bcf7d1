package main

// TenantsCmd groups what operators do with tenants and their databases.
type TenantsCmd struct {
	List    TenantsListCmd    `cmd:"" help:"Show the tenants: where each lives, its schema and its size."`
	Show    TenantsShowCmd    `cmd:"" help:"Show all about one tenant: its database, its log, its read models."`
	Migrate TenantsMigrateCmd `cmd:"" help:"Bring the schemas of tenants' databases up to date while the platform serves. It may be killed and repeated."`
	Move    TenantsMoveCmd    `cmd:"" help:"Move a tenant to another PostgreSQL server while the platform serves it. It may be killed and repeated."`
	Export  TenantsExportCmd  `cmd:"" help:"Write a tenant's log, claims and wrapped keys into one file while the platform serves it."`
	Import  TenantsImportCmd  `cmd:"" help:"Bring back, or take over, a tenant from a file that 'factum tenants export' wrote. It may be killed and repeated."`
	Delete  TenantsDeleteCmd  `cmd:"" help:"Take a tenant out of service and drop its database a day later."`
}
