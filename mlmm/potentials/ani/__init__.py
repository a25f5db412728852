"""The ANI family: networks in torch and in C++, and the files that they are published in."""
