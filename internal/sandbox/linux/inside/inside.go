// Package inside is the first process of the linux driver's sandboxes: it makes the
// sandbox from within, and starts the function's processes.
package inside

// Arg is the first argument of a program that is to call Init before all else.
const Arg = "sandbox-init"

// Mark is set in the first process's environment, so that a program that forgot to
// call Init fails instead of starting itself for ever.
const Mark = "KILN_SANDBOX_INIT"
