x = '\0'
raise OSError(2, 'no', 'file')
