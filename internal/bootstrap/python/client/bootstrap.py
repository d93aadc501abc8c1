"""Starts the runtime client. It stays this short because Python compiles the
program it is given anew at every start; the package is compiled beforehand."""
from kiln_runtime.main import main

main()
