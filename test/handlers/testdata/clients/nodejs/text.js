throw "no";
