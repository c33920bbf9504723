/* connect PORT: one TCP connection to 127.0.0.1 until the other side closes it. Who looks for its process later finds none. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int count, char **arguments)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int stream = socket(AF_INET, SOCK_STREAM, 0);
	char end;

	if (count < 2)
		return 2;
	to.sin_port = htons(atoi(arguments[1]));
	if (connect(stream, (struct sockaddr *)&to, sizeof(to)) != 0)
		return 1;
	recv(stream, &end, 1, 0);
	return 0;
}
