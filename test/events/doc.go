// Package events holds event sources from outside: real queues and streams that others
// wrote, real daemons, functions that note what they get at a ledger which no daemon has
// to do with, and kill -9 in the middle.
package events
