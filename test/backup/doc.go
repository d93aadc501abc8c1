// Package backup saves real daemons while they are at work, and restores them.
package backup
