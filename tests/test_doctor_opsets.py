"""Attributes that an operator of another domain does not have."""

from __future__ import annotations

import pytest
from doctor_models import found, parsed


@pytest.mark.parametrize(("name", "codes"), [("alpha", []), ("alfa", ["attribute-unknown"])])
def test_an_attribute_of_an_operator_of_the_runtime(name, codes):
    graph = f"g (float[N] x) => (float[N] y) {{ y = com.microsoft.QuickGelu<{name} = 1.0>(x) }}"
    assert found(parsed(graph, more=', "com.microsoft": 1')) == codes
