await 1;
throw new RangeError("no");
