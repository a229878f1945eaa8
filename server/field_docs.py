"""The docstrings under a dataclass's fields, so that a command's help says what the config says."""

import ast
import inspect
import textwrap
from itertools import pairwise


def field_docs(config: type) -> dict[str, str]:
    """Field name -> the string that follows its annotation. Fields without one are left out."""
    (class_body,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(class_body, ast.ClassDef)
    return {
        field.target.id: doc.value.value
        for field, doc in pairwise(class_body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }
