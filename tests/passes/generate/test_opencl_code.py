from mlc_controlnet.passes.generate.opencl_code import correct_vectors


def test_a_vector_of_numbers_is_a_literal_of_opencl() -> None:
    assert correct_vectors("x = half4(a[0], b, c, d) * float2(1.0f, y);") == (
        "x = (half4)(a[0], b, c, d) * (float2)(1.0f, y);"
    )


def test_conversions_literals_and_other_calls_stay() -> None:
    for code in ("convert_half4(x)", "(half4)(a, b, c, d)", "vload4(0, x)", "half4 y; as_float2(z)", "half(x)"):
        assert correct_vectors(code) == code
