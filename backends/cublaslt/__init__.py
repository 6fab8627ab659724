"""Matrix products on the GPU by cuBLASLt, called through a handle and memory of our own.

CuPy's products go through cuBLAS, which it refuses on a capturing stream, and end where the product
does; these can be captured, and may end with a bias, a ReLU or the sum of an operand.
"""
