"""A hub for models in a directory: speaks the HTTP protocol of the Hugging Face Hub, read-only.

What lies where, beneath the directory that is served:

    org/name/...            the files of model `org/name`, branch `main`
    org/name/@branch/...    the files of another branch; its name is percent-encoded (`@feature%2Fx`);
                            `@main` instead of plain files is fine, both at once is refused
    org/name/.hub.json      optional: the model's refs and figures

    {"branches": {"main": "weights", "fp16": "@fp16"}, "tags": {"v1.0": "."},
     "downloads": 12, "likes": 3, "labels": ["text-generation"], "description": "…"}

Both maps name a folder beneath `org/name`; `.` is the model's own folder without the folders that other refs
name. `branches`, where given, replaces what the folders' names say and holds `main`. All keys are optional, an
unknown one is an error.

A commit id is derived from the names and contents of a branch's files alone: any change gives another one, and
the one before is then unknown (`RevisionNotFound`). Symbolic links, names that begin with a dot (`.gitattributes`
and `.gitignore` excepted) and names that are not UTF-8 are not served.

Source of the protocol: https://huggingface.co/docs/hub/api and the requests of the `huggingface_hub` client.
"""

from stowage.hub.app import create_app
from stowage.hub.server import run

__all__ = ["create_app", "run"]
