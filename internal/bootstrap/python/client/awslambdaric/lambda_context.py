"""Where functions expect the context's classes, mostly for annotations."""
from kiln_runtime.context import Client, ClientContext, CognitoIdentity, LambdaContext

__all__ = ["Client", "ClientContext", "CognitoIdentity", "LambdaContext"]
