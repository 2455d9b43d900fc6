from django.db import models


class Record(models.Model):
    title = models.CharField(max_length=100, unique=True)
    attachment = models.FileField(upload_to="attachments", blank=True)
    objects = models.Manager()

    def __str__(self) -> str:
        return str(self.title)
