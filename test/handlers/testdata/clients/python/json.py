raise ValueError('the standard library comes first')
